"""The Hub's side of `pull`: look first, then download what is wanted of one commit, and check every byte.

What the Hub says of a repository (files, sizes, hashes, its scanners' results) is asked for before anything
is downloaded, and all that follows is about that one commit, however the repository moves meanwhile.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phard_hub.errors import HubUnavailableError, OutputError, PhardError, RepoError, first_line
from phard_hub.hub.client import ready_client
from phard_hub.hub.metadata import LARGEST_CARD as LARGEST_CARD
from phard_hub.hub.names import is_commit, is_path, is_plain, is_repo_id, is_revision
from phard_hub.hub.snapshot import LARGEST_JSON
from phard_hub.report.wording import printable

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

CARD = "README.md"
WEIGHTS = "*.safetensors"
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "*.safetensors.index.json")
TERMS = ("LICENSE*", "NOTICE*")
LARGEST_TERMS = 4 * 2**20

TIMEOUT = 30.0
_BELOW = "*/*"  # files in sub-folders are of other formats: onnx/, openvino/, checkpoints
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Download:
    """What was brought here; `phard_hub.hub.snapshot.Snapshot` explains the fields that it has, too.

    Attributes:
        scanned: whether the Hub's scanners have finished, without which ``flagged`` says little; None if nobody knows.
    """

    folder: Path
    commit: str
    listing: tuple[str, ...]
    flagged: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    from_cache: str | None = None
    scanned: bool | None = None


def wanted(names: Iterable[str], *, weights: bool = True) -> Iterator[str]:
    """The names, at the top of a repository only, of files that loading may need, of the card and of the licence.

    No name is wanted that holds anything but printable ASCII, because it could look like another one.
    """
    for name in names:
        if {"/", "\\"} & set(name) or not is_plain(name):
            continue
        patterns = (WEIGHTS,) if name.endswith(".safetensors") else (CARD, *CONFIGS, *TERMS)
        if (weights or patterns != (WEIGHTS,)) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            yield name


def download(repo: str, revision: str | None, *, weights: bool) -> Download:
    """Get the wanted files of a repository, from the Hub, or from the cache if the Hub does not answer.

    Args:
        repo: Hub id.
        revision: branch, tag or commit; the default branch if None.
        weights: without, only configs and the card.

    Raises:
        RepoError: the repository or revision is not there or not accessible, has no safetensors, or is not what
            the Hub says it is.
        HubUnavailableError: the Hub did not answer, and the cache does not hold all that is needed.
        OutputError: the cache cannot be written, or the disk has too little space.
    """
    check_name(repo, revision)
    ready_client()
    with in_one_line(repo, revision):
        info = _ask(repo, revision)
        if isinstance(info, Exception):
            return _from_cache(repo, revision, info, weights=weights)
        return _from_hub(repo, revision, info, weights=weights)


def check_name(repo: str, revision: str | None) -> None:
    """Refuse what can be no name of a model on the Hub.

    Raises:
        RepoError: it is none.
    """
    if not is_repo_id(repo) or not (revision is None or is_revision(revision)):
        named = printable(ascii(repo if revision is None else f"{repo}@{revision}"), 200)
        raise RepoError(f"{named} is no name of a model on the Hub.", advice="Give it as owner/name or owner/name@tag.")


def _ask(repo: str, revision: str | None) -> ModelInfo | Exception:
    """What the Hub says of the repository at this moment; if it does not answer, the error that says why."""
    from huggingface_hub import model_info
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    from phard_hub.hub.refusals import ask, may_pass

    def look() -> ModelInfo:
        return model_info(repo, revision=revision, timeout=TIMEOUT, files_metadata=True, securityStatus=True)

    try:
        return ask(repo, look)
    except (OfflineModeIsEnabled, httpx.HTTPError) as error:
        if not (isinstance(error, OfflineModeIsEnabled) or may_pass(error)):
            raise
        return error


def _from_hub(repo: str, revision: str | None, info: ModelInfo, *, weights: bool) -> Download:
    from huggingface_hub import resolve_revision, snapshot_download

    from phard_hub.hub.listing import commit_of, listed
    from phard_hub.hub.refusals import ask

    commit, files = commit_of(repo, info), listed(repo, info)
    names, left_out = _choose(repo, commit, files, weights=weights)
    _require_safe(repo, info, names)
    _require_space(repo, commit, [files[name] for name in names])
    # For the cache to know, when the Hub is down one day, which commit the name stands for.
    ask(repo, lambda: resolve_revision(repo, revision=revision))
    patterns = [glob.escape(name) for name in names]
    folder = Path(ask(repo, lambda: snapshot_download(repo, revision=commit, allow_patterns=patterns)))
    verify_hashes(repo, commit, folder, {name: hash_on_hub(files[name]) for name in names})
    return Download(
        folder=folder,
        commit=commit,
        listing=tuple(files),
        flagged=tuple(printable(f"{path} ({level})", 200) for path, level in _issues(info)),
        left_out=tuple(left_out),
        scanned=_scanned(info),
    )


def _choose(repo: str, commit: str, files: Mapping[str, RepoSibling], *, weights: bool) -> tuple[list[str], list[str]]:
    """(files to download, files that are too large to be what their name says); no byte was asked for yet."""
    from phard_hub.hub.refusals import nonsense

    names, left_out = [], []
    for name in wanted(files, weights=weights):
        size = files[name].size
        if size is None or not hash_on_hub(files[name]):
            raise nonsense(repo, f"{name} has no size or no hash")
        if name.endswith(".json") and size > LARGEST_JSON:
            raise RepoError(
                f"{name} of {repo} has {size / 1e6:.0f} MB.", advice="That is no config: choose another model."
            )
        if size > (LARGEST_CARD if name == CARD else LARGEST_TERMS) and not name.endswith((".json", ".safetensors")):
            left_out.append(f"{name} ({size / 1e6:.0f} MB)")
            _log.warning("%s of %s has %.0f MB and is left out.", name, repo, size / 1e6)
        else:
            names.append(name)
    if weights and not any(name.endswith(".safetensors") for name in names):
        raise RepoError(
            f"{repo} at {commit[:12]} has no *.safetensors file.",
            advice="Only safetensors are loaded: ask its owner to convert the weights, or choose another model.",
        )
    return names, left_out


def _status(info: ModelInfo) -> Mapping[str, Any]:
    """What the Hub's scanners say; nothing if they say nothing that makes sense."""
    status = info.security_repo_status
    return status if isinstance(status, dict) else {}


def _scanned(info: ModelInfo) -> bool | None:
    done = _status(info).get("scansDone")
    return done if isinstance(done, bool) else None


def _issues(info: ModelInfo) -> Iterator[tuple[str, str]]:
    """(path, level) of each file in which the scanners saw something."""
    found = _status(info).get("filesWithIssues")
    for issue in found if isinstance(found, list) else ():
        if isinstance(issue, dict):
            yield str(issue.get("path")), str(issue.get("level"))


def _require_safe(repo: str, info: ModelInfo, names: Iterable[str]) -> None:
    """The Hub's scanners call none of the wanted files unsafe."""
    unsafe = [path for path, level in _issues(info) if level == "unsafe" and path in names]
    if unsafe:
        raise RepoError(
            f"The Hub's scanners call {', '.join(unsafe)} of {repo} unsafe; nothing was downloaded.",
            advice="Read the scan report on the model's page, or choose another model.",
        )


def _require_space(repo: str, commit: str, files: Iterable[RepoSibling]) -> None:
    """What is not in the cache fits on the disk."""
    from huggingface_hub import constants, try_to_load_from_cache

    needed = sum(
        file.size or 0
        for file in files
        if not isinstance(try_to_load_from_cache(repo, file.rfilename, revision=commit), str)
    )
    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        advice = "Make space, or set HF_HOME to a folder on another disk."
        raise OutputError(
            f"{repo} needs {needed / 1e9:.2f} GB, and {place} has {free / 1e9:.2f} GB left.", advice=advice
        )


def _from_cache(repo: str, revision: str | None, silent: Exception, *, weights: bool) -> Download:
    """The newest commit of this name that the cache knows, if it holds all that is needed."""
    from huggingface_hub import errors, get_cached_repo_tree, resolve_revision, snapshot_download

    from phard_hub.hub.refusals import silence

    missing, (why, _) = _silent(repo, revision, silent), silence(silent)
    needed = [*CONFIGS, WEIGHTS] if weights else [*CONFIGS]
    unknown = (errors.RevisionResolutionError, errors.LocalEntryNotFoundError, errors.CachedRepoTreeNotFoundError)
    try:
        commit = resolve_revision(repo, revision=revision, local_files_only=True).resolved
        folder = Path(
            snapshot_download(
                repo, revision=commit, allow_patterns=needed, ignore_patterns=_BELOW, local_files_only=True
            )
        )
        listing = tuple(file.path for file in get_cached_repo_tree(repo, revision=commit))
    except unknown as error:
        raise missing from error
    names = [name for name in wanted(listing, weights=weights) if (folder / name).is_file()]
    if not is_commit(commit) or not all(is_path(path) for path in listing):
        raise missing
    if weights and not any(name.endswith(".safetensors") for name in names):
        raise missing
    # In the cache, files are links to blobs that are named by the hash that the Hub gave.
    blobs = {name: (folder / name).resolve() for name in names}
    hashes = {name: blob.name for name, blob in blobs.items() if blob.parent.name == "blobs"}
    verify_hashes(repo, commit, folder, hashes)
    _log.warning("The Hub does not answer (%s): using %s at %s from the cache.", why, repo, commit[:12])
    return Download(folder=folder, commit=commit, listing=listing, from_cache=why)


def hash_on_hub(file: RepoSibling) -> str:
    """The sha256 of a large file, the git sha1 of another one; empty if the Hub does not say."""
    return file.lfs.sha256 if file.lfs else file.blob_id or ""


def verify_hashes(repo: str, commit: str, folder: Path, hashes: Mapping[str, str]) -> None:
    """Every file of a folder of the cache has the hash that the Hub says; one that has not is downloaded once more.

    Raises:
        RepoError: one has not.
        HubUnavailableError: it cannot be downloaded again.
    """
    for name, hash_ in hashes.items():
        if _matches(folder / name, hash_):
            continue
        _log.warning("%s of %s is damaged: downloading it again.", name, repo)
        _replace(repo, commit, folder / name)
        if not _matches(folder / name, hash_):
            _remove(folder / name)
            problem = f"{name} of {repo} has another hash than the Hub says ({hash_[:12]}), also when downloaded again."
            raise RepoError(problem, advice="Something changes it on its way: try another network.")


def _replace(repo: str, commit: str, path: Path) -> None:
    """Download a file that the cache holds a damaged copy of."""
    from huggingface_hub import errors, hf_hub_download

    from phard_hub.hub.refusals import ask

    _remove(path)
    try:
        ask(repo, lambda: hf_hub_download(repo, path.name, revision=commit))
    except errors.LocalEntryNotFoundError as error:
        problem = f"The cache's copy of {path.name} of {repo} is damaged, and the Hub does not answer."
        raise HubUnavailableError(problem, advice="Try again later.") from error


def _remove(path: Path) -> None:
    """Remove a file from the cache, and the blob that it is a link to."""
    path.resolve().unlink()
    path.unlink(missing_ok=True)


def _matches(path: Path, hash_: str) -> bool:
    """Whether a file has this hash: a sha256 (64 digits) or a git sha1 (40); an empty one says nothing."""
    if not hash_:
        return True
    with path.open("rb") as file:
        if len(hash_) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == hash_
        git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        git.update(file.read())
        return git.hexdigest() == hash_


@contextmanager
def in_one_line(repo: str, revision: str | None) -> Iterator[None]:
    """Say in one line what the Hub or the disk refused."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    from phard_hub.hub.refusals import may_pass

    try:
        yield
    except PhardError:
        raise
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        if may_pass(error):
            raise _silent(repo, revision, error) from error
        raise _refused(repo, revision, error) from error
    except (httpx.HTTPError, ConnectionError, errors.LocalEntryNotFoundError, RuntimeError) as error:
        raise _silent(repo, revision, error) from error
    except OSError as error:
        if error.errno is None:  # the client's own errors, about what it received
            raise _silent(repo, revision, error) from error
        advice = "Make space or set HF_HOME to a folder that can be written."
        raise OutputError(f"Cannot write {repo} into the cache: {error.strerror}.", advice=advice) from error


def _silent(repo: str, revision: str | None, error: Exception) -> HubUnavailableError:
    from phard_hub.hub.refusals import silence

    why, advice = silence(error)
    named = f"{repo} at {revision!r}" if revision else repo
    return HubUnavailableError(f"The Hub did not give {named}, and the cache does not hold it: {why}.", advice=advice)


def _refused(repo: str, revision: str | None, error: Exception) -> RepoError:
    from huggingface_hub import errors

    log_in = "log in with `hf auth login`"
    match error:
        case errors.GatedRepoError():
            return RepoError(f"{repo} is gated.", advice=f"Accept its terms on the Hub and {log_in}.")
        case errors.RepositoryNotFoundError():
            problem = f"There is no folder and no model {repo} on the Hub, or it is private."
            return RepoError(problem, advice=f"Check the spelling; if it is private, {log_in}.")
        case errors.RevisionNotFoundError():
            return RepoError(f"{repo} has no revision {revision!r}.", advice="Give a branch, a tag or a commit.")
        case errors.HfHubHTTPError():
            said = printable(error.server_message or first_line(error), 300)
            return RepoError(f"The Hub refuses {repo}: {said}.", advice=f"If it is about your token, {log_in}.")
        case _:
            return RepoError(f"{repo} cannot be used: {printable(first_line(error), 300)}.", advice="Check the id.")
