"""Step one of three: bring a model's files here, pinned to one commit, copied to a private folder and hashed.

Nothing is opened beyond hashing and the licence line of the README; `audit` looks inside, and `load`
takes only what was audited.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from phard_hub.errors import RepoError
from phard_hub.hub.copies import NotTakenError, PrivateFolder, TooLargeError, listing, take
from phard_hub.hub.download import CARD, LARGEST_CARD, LARGEST_TERMS, Download, download, wanted
from phard_hub.hub.metadata import metadata_of
from phard_hub.hub.names import require_model, split_revision
from phard_hub.hub.snapshot import LARGEST_JSON, Snapshot
from phard_hub.report.findings import error
from phard_hub.report.wording import printable


def pull(repo: str, revision: str | None = None, *, weights: bool = True) -> Snapshot:
    """Get a model from a local folder or from the Hub, and hash its files.

    Of the Hub only safetensors, configs and the card are downloaded, once the list of files and what the Hub's
    scanners say was looked at; their hashes are those that the Hub names. If the Hub does not answer, what
    the cache holds of this revision is used, and ``from_cache`` says so.

    Args:
        repo: An existing folder, or a Hub id such as ``google/vit-base-patch16-224``, also as ``org/model@revision``.
        revision: Branch, tag or commit on the Hub; the default branch if None. Not for folders.
        weights: Without weights, only configs and the card are downloaded.

    Raises:
        RepoError: there is no such folder, repository or revision, it is not accessible, it has no safetensors,
            the Hub calls them unsafe, or a file is not what the Hub says it is.
        HubUnavailableError: the Hub did not answer and the cache does not hold the model.
        OutputError: the cache cannot be written, or the disk is too small for the model.
    """
    if revision is None:
        repo, revision = split_revision(repo)
    folder = Path(repo).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise RepoError(
                f"{repo} is a local folder and has no revision {revision!r}.", advice="Leave the revision out."
            )
        return _snapshot(repo, folder, weights=weights)
    require_model(repo)
    return pull_from_hub(repo, revision, weights=weights)


def pull_from_hub(repo: str, revision: str | None = None, *, weights: bool = True) -> Snapshot:
    """Get a model from the Hub, whatever folders are here: for ids that a stranger chose; see `pull`."""
    found = download(repo, revision, weights=weights)
    return _snapshot(repo, found.folder, weights=weights, found=found)


def sha256(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _snapshot(repo: str, folder: Path, *, weights: bool, found: Download | None = None) -> Snapshot:
    keeper = PrivateFolder()
    files: dict[str, str] = {}
    findings, left_out = [], list(found.left_out if found else ())
    try:
        paths = found.listing if found else listing(folder)
        for name in sorted(wanted((path for path in paths if "/" not in path), weights=weights)):
            if found and not (folder / name).exists():
                continue
            try:
                files[name] = take(folder, name, keeper.path, largest=_largest(name))
            except TooLargeError as size:
                left_out.append(str(size))
            except NotTakenError as why:
                findings.append(error("PH-A07", name, str(why), "Copy the model to a new folder, as plain files."))
    except OSError as failure:
        raise RepoError(
            f"Cannot read {failure.filename or folder}: {failure.strerror}.", advice="Make the model folder readable."
        ) from failure
    return Snapshot(
        folder=keeper.path,
        repo=repo,
        commit=found.commit if found else None,
        files=files,
        origin=folder,
        license=_license(keeper.path),
        listing=paths,
        flagged=found.flagged if found else (),
        left_out=tuple(left_out),
        from_cache=found.from_cache if found else None,
        scanned=found.scanned if found else None,
        findings=tuple(findings),
        keeper=keeper,
    )


def _largest(name: str) -> int | None:
    """How many bytes a file of this name may have; weights may have any size."""
    if name.endswith(".safetensors"):
        return None
    if name.endswith(".json"):
        return LARGEST_JSON
    return LARGEST_CARD if name == CARD else LARGEST_TERMS


def _license(folder: Path) -> str | None:
    value = metadata_of(folder).fields.get("license")
    return printable(value) if isinstance(value, str) else None
