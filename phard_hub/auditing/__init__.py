"""Step two of three: look at a model without running anything of it.

Each check is a small function that takes a `Snapshot` and yields `Finding`s. Files are read as bytes, as JSON or as
tensors only: nothing here imports or unpickles what it looks at. The library's own class is built from the config
without memory for its weights, and only if the files are in order. All of this happens in a process of its own with
limits (see `limits`). A finding of severity ``error`` forbids loading; there is no way to overrule it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial

from phard_hub.auditing import config, pickles, repository, structure, tensors
from phard_hub.auditing.limits import Limits, within
from phard_hub.auditing.upstream import compare, find
from phard_hub.auditing.weights import compare_weights
from phard_hub.errors import CheckpointError
from phard_hub.hub.pull import pull
from phard_hub.hub.snapshot import Audit, Snapshot
from phard_hub.models.loading import import_library
from phard_hub.models.timm_format import import_timm, names_timm
from phard_hub.report.findings import error
from phard_hub.report.record import Finding

__all__ = ["Audit", "audit", "pull_and_audit"]

Check = Callable[[Snapshot], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (*repository.CHECKS, *pickles.CHECKS, *config.CHECKS, *tensors.CHECKS)


def audit(snapshot: Snapshot, upstream: str | None = None, *, allow: Collection[str] = ()) -> Audit:
    """Look at a model in every way that runs nothing of it: its files, its config, its tensors, its image processor.

    Args:
        snapshot: what `pull` brought.
        upstream: the model to compare config and tensors with, a folder or a Hub id, as ``org/model@revision`` if need
            be. By default the ``base_model`` of the card, of which only configs and card are downloaded.
        allow: fields of the config such as ``hidden_act`` that the user knows to differ; they become notes.

    Raises:
        RepoError: a given upstream model does not exist or is not accessible.
        HubUnavailableError: the Hub did not answer when asked for a given upstream model.
    """
    theirs, named = find(snapshot, upstream)
    if names_timm(snapshot):  # or the process that looks would import it anew each time
        with suppress(CheckpointError):  # the check that needs it says so
            import_timm()
    compared = partial(compare, theirs=theirs, given=upstream is not None, allow=allow)
    tensors_compared = partial(compare_weights, theirs=theirs)
    found = within(limits_of(snapshot, theirs), lambda: examine(snapshot, compared, tensors_compared), snapshot.repo)
    return Audit(snapshot, (*snapshot.findings, *named, *found), upstream=theirs)


def pull_and_audit(
    repo: str, revision: str | None = None, upstream: str | None = None, *, allow: Collection[str] = ()
) -> Audit:
    """Pull and audit a model that is to be loaded; see `phard_hub.hub.pull.pull` and `audit`."""
    snapshot = pull(repo, revision)
    import_library()  # or the process that looks would import it, and this one again
    return audit(snapshot, upstream, allow=allow)


def examine(snapshot: Snapshot, compared: Check, tensors_compared: Check) -> Iterator[Finding]:
    """All checks, one after the other; tensors are looked at as a whole only where nothing forbids loading."""
    errors = any(finding.severity == "error" for finding in snapshot.findings)
    for check in (*CHECKS, compared):
        for finding in _guarded(check, snapshot):
            errors |= finding.severity == "error"
            yield finding
    if not errors:
        yield from _guarded(structure.check, snapshot)
        yield from _guarded(tensors_compared, snapshot)


def limits_of(*snapshots: Snapshot | None) -> Limits:
    """A minute and 1.6 GB beside what is mapped, and more time for weights of gigabytes, which are read as a whole."""
    size = sum((each.folder / name).stat().st_size for each in snapshots if each for name in each.files)
    return Limits(seconds=50 + 10 * (size // 2**30 + 1), memory=3 * 2**29 + size)


def _guarded(check: Check, snapshot: Snapshot) -> Iterator[Finding]:
    """Run one check; one that crashes has not passed."""
    try:
        yield from check(snapshot)
    except MemoryError:
        raise
    except Exception as crash:  # noqa: BLE001 - whatever a hostile file does to a check must not pass for "nothing found"
        name = getattr(check, "__name__", "check")
        evidence = f"{name} crashed: {type(crash).__name__}: {crash}"
        yield error("PH-A99", snapshot.repo, evidence, "Report this file to the authors of phard-hub.")
