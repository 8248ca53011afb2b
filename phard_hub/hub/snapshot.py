"""What passes from pulling to auditing to loading: a model's files at one moment, and what was noticed about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phard_hub.errors import AuditError
from phard_hub.report.base import unambiguous
from phard_hub.report.findings import AuditRecord
from phard_hub.report.record import Finding

LARGEST_JSON = 8 * 2**20
"""Bytes of a JSON file that are read; the config of a model of 20,000 classes has one megabyte."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A model's files at one moment: a private copy of them, with the hash of each.

    What is audited, loaded and released are the copies. So nobody can change a file after it was hashed, and no key of
    a config can lead a library to a file that was not.

    Attributes:
        folder: Where the copies lie, and nothing else.
        repo: The Hub id, or the folder as it was given.
        commit: The Hub's commit hash; None for a local folder.
        files: The sha256 of each file in ``folder``, by its name.
        origin: Where the files were copied from; None if nobody knows.
        license: What the README's metadata says; None if it says nothing.
        listing: All paths below ``origin`` or in the repository, also of files that were not copied.
        flagged: Files in which the Hub's own scanners saw something, as ``path (level)``.
        left_out: Files that were not downloaded because of their size, as ``path (size)``.
        from_cache: Why the Hub could not be asked, so that the files are the cache's newest and nobody knows what
            the Hub's scanners say; None if it was asked, and for a local folder.
        scanned: Whether the Hub's scanners have finished, without which ``flagged`` says little; None if nobody knows.
        findings: What pulling noticed itself, such as files that cannot be taken.
        keeper: Removes the copies when nobody holds the snapshot any more.
    """

    folder: Path
    repo: str
    commit: str | None
    files: dict[str, str]
    origin: Path | None = None
    license: str | None = None
    listing: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    from_cache: str | None = None
    scanned: bool | None = None
    findings: tuple[Finding, ...] = ()
    keeper: object = field(default=None, repr=False, compare=False)

    def json(self, name: str) -> Any:  # noqa: ANN401 - whatever the JSON holds
        """The content of a JSON file; None if it is not there, not valid, or far larger than any config."""
        if name not in self.files:
            return None
        path = self.folder / name
        try:
            return unambiguous(path.read_bytes() if path.stat().st_size <= LARGEST_JSON else b"")
        except ValueError:
            return None

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json; empty if it is missing or no JSON object."""
        content = self.json("config.json")
        return content if isinstance(content, dict) else {}


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
        return AuditRecord(
            repo=self.snapshot.repo,
            commit=self.snapshot.commit,
            upstream=None if self.upstream is None else _place(self.upstream),
            files=self.snapshot.files,
            findings=self.findings,
        )


def _place(snapshot: Snapshot) -> str:
    return f"{snapshot.repo}@{snapshot.commit}" if snapshot.commit else snapshot.repo
