"""Step one of three: bring a model's files here, pinned to one commit and hashed.

Nothing is opened beyond hashing and the licence line of the README; `audit` looks inside, and `load`
takes only what was audited.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phard_hub.errors import RepoError
from phard_hub.hub.download import CARD, LARGEST_CARD, Download, download, wanted

_REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A model's files at one moment, with the hash of each.

    Attributes:
        folder: Where the files lie.
        repo: The Hub id, or the folder as it was given.
        commit: The Hub's commit hash; None for a local folder.
        files: The sha256 of each file that matters, by its path inside the folder.
        license: What the README's metadata says; None if it says nothing.
        listing: All paths of the repository, also of files that were not downloaded.
        flagged: Files in which the Hub's own scanners saw something, as ``path (level)``.
        left_out: Files that were not downloaded because of their size, as ``path (size)``.
        from_cache: Why the Hub could not be asked, so that the files are the cache's newest and nobody knows what
            the Hub's scanners say; None if it was asked, and for a local folder.
    """

    folder: Path
    repo: str
    commit: str | None
    files: dict[str, str]
    license: str | None = None
    listing: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    from_cache: str | None = None


def split_revision(name: str) -> tuple[str, str | None]:
    """The parts of ``org/model@revision``; a folder has no revision, whatever its name."""
    repo, at, revision = name.rpartition("@")
    return (repo, revision) if at and not Path(name).expanduser().is_dir() else (name, None)


def pull(repo: str, revision: str | None = None, *, weights: bool = True) -> Snapshot:
    """Get a model from a local folder or from the Hub, and hash its files.

    Of the Hub only safetensors, configs and the card are downloaded, once the list of files and what the Hub's
    scanners say was looked at; their hashes are those that the Hub names. If the Hub does not answer, what
    the cache holds of this revision is used, and ``from_cache`` says so.

    Args:
        repo: An existing folder, or a Hub id such as ``google/vit-base-patch16-224``.
        revision: Branch, tag or commit on the Hub; the default branch if None. Not for folders.
        weights: Without weights, only configs and the card are downloaded.

    Raises:
        RepoError: there is no such folder, repository or revision, it is not accessible, it has no safetensors,
            the Hub calls them unsafe, or a file is not what the Hub says it is.
        HubUnavailableError: the Hub did not answer and the cache does not hold the model.
        OutputError: the cache cannot be written, or the disk is too small for the model.
    """
    folder = Path(repo).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise RepoError(
                f"{repo} is a local folder and has no revision {revision!r}.", advice="Leave the revision out."
            )
        return _snapshot(repo, folder, _listing(folder), weights=weights)
    if not _REPO_ID.fullmatch(repo):
        raise RepoError(
            f"{repo!r} is neither an existing folder nor a Hub id.",
            advice="Give the path of a model folder, or an id such as microsoft/resnet-50.",
        )
    found = download(repo, revision, weights=weights)
    return _snapshot(repo, found.folder, found.listing, weights=weights, found=found)


def sha256(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listing(folder: Path) -> tuple[str, ...]:
    """All paths below a folder, without hidden folders such as .git; links are not followed."""
    paths = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [(Path(place) / name).relative_to(folder).as_posix() for name in sorted(files)]
    return tuple(paths)


def _snapshot(
    repo: str, folder: Path, listing: tuple[str, ...], *, weights: bool, found: Download | None = None
) -> Snapshot:
    try:
        present = sorted(path.name for path in folder.iterdir())
        names = [name for name in wanted(present, weights=weights) if (folder / name).is_file()]
        return Snapshot(
            folder=folder,
            repo=repo,
            commit=found.commit if found else None,
            files={name: sha256(folder / name) for name in names},
            license=_license(folder),
            listing=listing,
            flagged=found.flagged if found else (),
            left_out=found.left_out if found else (),
            from_cache=found.from_cache if found else None,
        )
    except OSError as error:
        raise RepoError(
            f"Cannot read {error.filename or folder}: {error.strerror}.", advice="Make the model folder readable."
        ) from error


def card_metadata(folder: Path) -> dict[str, Any]:
    """The metadata at the head of a folder's README; empty if there is none or it cannot be understood."""
    import yaml
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    readme = folder / CARD
    if not readme.is_file():
        return {}
    with readme.open("rb") as file:  # its head, for the README of a folder may be of any size
        block = REGEX_YAML_BLOCK.search(file.read(LARGEST_CARD).decode("utf-8", errors="replace"))
    try:
        metadata = yaml.safe_load(block[2]) if block else None
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _license(folder: Path) -> str | None:
    value = card_metadata(folder).get("license")
    return None if value is None else str(value)
