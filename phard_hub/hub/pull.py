"""Step one of three: bring a model's files here, pinned to one commit and hashed.

Nothing is opened beyond hashing and the licence line of the README; `audit` looks inside, and `load`
takes only what was audited.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phard_hub.errors import HubUnavailableError, OutputError, RepoError, first_line

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

WANTED = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "README.md",
)
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
    """

    folder: Path
    repo: str
    commit: str | None
    files: dict[str, str]
    license: str | None = None
    listing: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()


def pull(repo: str, revision: str | None = None) -> Snapshot:
    """Get a model from a local folder or from the Hub, and hash its files.

    Args:
        repo: An existing folder, or a Hub id such as ``google/vit-base-patch16-224``.
        revision: Branch, tag or commit on the Hub; the default branch if None. Not for folders.

    Raises:
        RepoError: there is no such folder, repository or revision, it is not accessible, or it has no safetensors.
        HubUnavailableError: the Hub did not answer and the cache does not hold the model.
        OutputError: the cache cannot be written.
    """
    folder = Path(repo).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise RepoError(
                f"{repo} is a local folder and has no revision {revision!r}.", advice="Leave the revision out."
            )
        return _snapshot(folder, repo, listing=_listing(folder))
    if not _REPO_ID.fullmatch(repo):
        raise RepoError(
            f"{repo!r} is neither an existing folder nor a Hub id.",
            advice="Give the path of a model folder, or an id such as microsoft/resnet-50.",
        )
    return _pull_from_hub(repo, revision)


def sha256(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pull_from_hub(repo: str, revision: str | None) -> Snapshot:
    from huggingface_hub import resolve_revision, snapshot_download

    with _hub_errors(repo, revision):
        commit = str(resolve_revision(repo, revision=revision).resolved)
        info = _model_info(repo, commit)
        listing = tuple(sibling.rfilename for sibling in info.siblings or ()) if info else ()
        if info and not any(name.endswith(".safetensors") for name in _wanted(listing)):
            raise RepoError(
                f"{repo} at {commit[:12]} has no *.safetensors file.",
                advice="Only safetensors are loaded: ask its owner to convert the weights, or choose another model.",
            )
        patterns = list(_wanted(listing)) if info else list(WANTED)
        folder = Path(
            snapshot_download(repo, revision=commit, allow_patterns=patterns, local_files_only=info is None),
        )
    return _snapshot(folder, repo, commit=commit, listing=listing or _listing(folder), flagged=_flagged(info))


def _model_info(repo: str, commit: str) -> ModelInfo | None:
    """What the Hub knows of this commit; None if it does not answer, for then the cache has to do."""
    from huggingface_hub import model_info
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return model_info(repo, revision=commit, files_metadata=True, securityStatus=True)
    except (OfflineModeIsEnabled, httpx.TransportError):
        return None


def _flagged(info: ModelInfo | None) -> tuple[str, ...]:
    status = (info.security_repo_status or {}) if info else {}
    return tuple(f"{issue.get('path')} ({issue.get('level')})" for issue in status.get("filesWithIssues") or ())


def _wanted(names: Iterable[str]) -> Iterator[str]:
    """The names, at the top of the repository only, of files that loading may need."""
    for name in names:
        if "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in WANTED):
            yield name


def _listing(folder: Path) -> tuple[str, ...]:
    """All paths below a folder, without hidden folders such as .git; links are not followed."""
    paths = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [(Path(place) / name).relative_to(folder).as_posix() for name in sorted(files)]
    return tuple(paths)


def _snapshot(
    folder: Path, repo: str, *, listing: tuple[str, ...], commit: str | None = None, flagged: tuple[str, ...] = ()
) -> Snapshot:
    try:
        names = [name for name in _wanted(sorted(path.name for path in folder.iterdir())) if (folder / name).is_file()]
        files = {name: sha256(folder / name) for name in names}
    except OSError as error:
        raise RepoError(
            f"Cannot read {error.filename or folder}: {error.strerror}.", advice="Make the model folder readable."
        ) from error
    license_ = _license(folder / "README.md")
    return Snapshot(
        folder=folder, repo=repo, commit=commit, files=files, license=license_, listing=listing, flagged=flagged
    )


def _license(readme: Path) -> str | None:
    """The licence in the README's metadata; None if there is none or it cannot be understood."""
    import yaml
    from huggingface_hub.repocard import metadata_load

    if not readme.is_file():
        return None
    try:
        metadata = metadata_load(readme)
    except (ValueError, yaml.YAMLError):
        return None
    value = metadata.get("license") if isinstance(metadata, dict) else None
    return None if value is None else str(value)


@contextmanager
def _hub_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Say in one line what the Hub or the cache refused."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    at = f" at {revision!r}" if revision else ""
    try:
        yield
    except errors.GatedRepoError as error:
        raise RepoError(
            f"{repo} is gated.", advice="Accept its terms on the Hub and log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        advice = "Check the spelling; if it is private, log in with `hf auth login`."
        raise RepoError(
            f"There is no folder and no model {repo} on the Hub, or it is private.", advice=advice
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RepoError(f"{repo} has no revision {revision!r}.", advice="Give a branch, a tag or a commit.") from error
    except (errors.HFValidationError, errors.DisabledRepoError) as error:
        raise RepoError(f"{repo} cannot be used: {first_line(error)}.", advice="Check the id.") from error
    except (
        errors.RevisionResolutionError,
        errors.LocalEntryNotFoundError,
        errors.HfHubHTTPError,
        httpx.TransportError,
        ConnectionError,
    ) as error:
        raise HubUnavailableError(
            f"The Hub did not give {repo}{at}, and the cache does not hold it: {first_line(error)}.",
            advice="Try again later, or give a local folder.",
        ) from error
    except OSError as error:
        advice = "Make space or set HF_HOME to a folder that can be written."
        raise OutputError(
            f"Cannot write {repo} into the cache: {error.strerror or first_line(error)}.", advice=advice
        ) from error
