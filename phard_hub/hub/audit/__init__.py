"""Step two of three: look at the files of a model without running anything of it.

Each check is a small function that takes a `Snapshot` and yields `Finding`s. Files are read as bytes,
as JSON or as tensors only: nothing here imports or unpickles what it looks at. A finding of severity
``error`` forbids loading; there is no way to overrule it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from phard_hub.errors import AuditError
from phard_hub.hub.audit import config, pickles, repository, weights
from phard_hub.hub.pull import Snapshot
from phard_hub.report.findings import AuditRecord, error
from phard_hub.report.record import Finding

_SHOWN = 3
Check = Callable[[Snapshot], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (*repository.CHECKS, *pickles.CHECKS, *config.CHECKS, *weights.CHECKS)


@dataclass(frozen=True)
class Audit:
    """A snapshot and everything that was noticed about it; the only thing that `load` accepts.

    Attributes:
        snapshot: The files that were looked at.
        findings: What was noticed, in the order of the checks.
        upstream: The model whose config this one's was compared with; None if there was none.
    """

    snapshot: Snapshot
    findings: tuple[Finding, ...]
    upstream: Snapshot | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that forbid loading."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def require(self) -> None:
        """Refuse to go on if there are errors.

        Raises:
            AuditError: names the first errors by their id, file and advice.
        """
        if self.errors:
            first, more = self.errors[:_SHOWN], len(self.errors) - _SHOWN
            listed = "; ".join(f"{error.id} {error.file}: {error.evidence}" for error in first)
            listed += f"; and {more} more, see `phard audit`" if more > 0 else ""
            advice = " ".join(dict.fromkeys(error.advice for error in first))
            raise AuditError(f"{self.snapshot.repo} may not be loaded: {listed}.", advice=advice)

    def record(self) -> AuditRecord:
        """The audit as plain data, to show or to keep."""
        upstream = self.upstream
        return AuditRecord(
            repo=self.snapshot.repo,
            commit=self.snapshot.commit,
            upstream=f"{upstream.repo}@{upstream.commit}"
            if upstream and upstream.commit
            else upstream and upstream.repo,
            files=self.snapshot.files,
            findings=self.findings,
        )


def audit(snapshot: Snapshot) -> Audit:
    """Check a model's files for what makes loading unsafe or unclear, without importing or unpickling them."""
    return Audit(snapshot, tuple(finding for check in CHECKS for finding in _guarded(check, snapshot)))


def _guarded(check: Check, snapshot: Snapshot) -> list[Finding]:
    """Run one check; one that crashes has not passed."""
    try:
        return list(check(snapshot))
    except Exception as crash:  # noqa: BLE001 - whatever a hostile file does to a check must not pass for "nothing found"
        evidence = f"{check.__name__} crashed: {type(crash).__name__}: {crash}"
        return [error("PH-A99", snapshot.repo, evidence, "Report this file to the authors of phard-hub.")]
