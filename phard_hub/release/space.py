"""The web page as a Space on the Hub: its files and those of this library, in one commit.

A Space installs what ``requirements.txt`` names; the library itself lies beside the page, so that a Space shows what
this very version computes. Files of a former push that are not needed any more are deleted, and nothing else is.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from phard_hub.errors import ConflictError, OutputError
from phard_hub.hub.names import is_commit
from phard_hub.hub.refusals import nonsense, one_line, persist, status_of, understood
from phard_hub.hub.target import Target, enter, look
from phard_hub.release.push import Content, Pushed, content_of, new_repository

PACKAGES = ("phard_hub", "spaces_app")
AT_THE_ROOT = ("README.md", "requirements.txt")
"""Files of the page that the Hub looks for at the root of a Space."""
_TITLE = "Update the page and the library"


def space_files() -> dict[str, bytes]:
    """What a Space holds, by path.

    Raises:
        OutputError: the page is not installed.
    """
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for name in PACKAGES
        for folder in [_folder(name)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in AT_THE_ROOT:
        files[name] = files.pop(f"spaces_app/{name}")
    return files


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise OutputError(f"The package {package} is not installed.", advice='Install with pip install ".[space]".')
    return Path(found.origin).parent


def push_space(repo: str, *, private: bool = False) -> Pushed:
    """Create or update a Space as one commit; a Space that has all of it already gets none.

    Args:
        repo: id of the Space, as owner/name; it is made if it does not exist.
        private: make it private, if it has to be made.

    Raises:
        RepoError: there is no such namespace.
        OutputError: you may not write there, or the Hub refused.
        ConflictError: the Space changed after it was looked at.
        HubUnavailableError: the Hub did not answer.
    """
    contents = {path: content_of(data) for path, data in space_files().items()}
    with one_line(repo):
        api = HfApi()
        _, target = enter(api, repo, pr=False, private=private, kind="space")
        if target.commit is not None:
            return _commit(api, target, contents)
        with new_repository(api, repo, private=private, kind="space") as made:
            return _commit(api, made, contents)


def _changes(target: Target, contents: Mapping[str, Content]) -> list[CommitOperationAdd | CommitOperationDelete]:
    gone = [path for path in target.files if path.split("/")[0] in PACKAGES and path not in contents]
    new = [path for path, content in contents.items() if not content.is_there(target.files.get(path))]
    return [
        *(CommitOperationAdd(path, contents[path].data) for path in new),
        *(CommitOperationDelete(path) for path in gone),
    ]


def _commit(api: HfApi, target: Target, contents: Mapping[str, Content]) -> Pushed:
    changes, repo = _changes(target, contents), target.repo
    if not changes:
        return Pushed(target.url, target.commit or "", sent=False)

    def attempt() -> Pushed:
        try:
            with understood(repo):
                info = api.create_commit(
                    repo, changes, commit_message=_TITLE, repo_type="space", parent_commit=target.commit
                )
        except HfHubHTTPError as error:
            if status_of(error) != 412:
                raise
            if (found := arrived()) is not None:
                return found
            problem = f"The Space {repo} has changed since it was looked at; nothing was written over."
            raise ConflictError(problem, advice="Push again.") from error
        if not is_commit(info.oid):
            raise nonsense(repo, "the new commit is no commit")
        return Pushed(target.url, info.oid, sent=True)

    def arrived() -> Pushed | None:
        now = look(api, repo, kind="space")
        return None if _changes(now, contents) else Pushed(now.url, now.commit or "", sent=True)

    return persist(attempt, arrived)
