"""What the Hub says of a repository, checked: which commit this is about, and which files it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phard_hub.hub.names import is_commit, is_hash, is_path
from phard_hub.hub.refusals import nonsense, understood
from phard_hub.report.wording import printable

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling


def commit_of(repo: str, info: ModelInfo) -> str:
    """The commit that the Hub's answer is about.

    Raises:
        HubUnavailableError: it names none.
    """
    if not is_commit(info.sha):
        raise nonsense(repo, "its commit is no commit")
    return str(info.sha)


def listed(repo: str, info: ModelInfo) -> dict[str, RepoSibling]:
    """The files of the repository, by path; a size or a hash may be missing, but none is wrong.

    Raises:
        HubUnavailableError: a name, size or hash is none that a file of a repository can have.
    """
    with understood(repo):
        files = {file.rfilename: file for file in info.siblings or ()}
    for path, file in files.items():
        if not is_path(path):
            raise nonsense(repo, f"a file is called {printable(ascii(path))}")
        if file.size is not None and not (type(file.size) is int and file.size >= 0):
            raise nonsense(repo, f"{path} has no size")
        if (file.blob_id is not None and not is_hash(file.blob_id, 40)) or (
            file.lfs is not None and not is_hash(file.lfs.sha256, 64)
        ):
            raise nonsense(repo, f"{path} has a hash that is none")
    return files
