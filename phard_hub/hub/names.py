"""Names that strangers choose: ids of repositories, revisions, commits and files, each checked in one place."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from phard_hub.errors import ImagesError, RepoError
from phard_hub.report.wording import printable

_PART = r"\w(?:[\w.-]*\w)?"
_ID = re.compile(rf"(?:(?P<owner>{_PART})/)?{_PART}", re.ASCII)
_LONGEST_ID = 96
_HEX = re.compile(r"[0-9a-f]+")
_NETWORK = re.compile(r"\w[\w.]*", re.ASCII)
_REVISION = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)
_PAGE = re.compile(
    rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?(?P<id>{_PART}/{_PART})"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[\w.-]+))?(?:[/?#]|$)",
    re.ASCII,
)
_DATASET = re.compile(r"(?P<id>[\w./-]+)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?", re.ASCII)
_LONGEST_DATASET = 300
_FILES = (".parquet", ".csv")


def is_repo_id(text: object, *, owner: bool = False) -> bool:
    """Whether this is a name that the Hub gives to repositories, such as ``org/model``.

    Args:
        text: what somebody wrote; only a string can be an id.
        owner: whether the name alone, without its owner, is not enough.
    """
    if not isinstance(text, str) or len(text) > _LONGEST_ID or "--" in text or ".." in text or text.endswith(".git"):
        return False
    found = _ID.fullmatch(text)
    return found is not None and (found["owner"] is not None or not owner)


def is_hash(text: object, digits: int) -> bool:
    """Whether this is a hash of so many hexadecimal digits."""
    return isinstance(text, str) and len(text) == digits and _HEX.fullmatch(text) is not None


def is_commit(text: object) -> bool:
    """Whether this is the full name of a commit: 40 hexadecimal digits."""
    return is_hash(text, 40)


def is_revision(text: str) -> bool:
    """Whether this can name a branch, tag or commit; the Hub's client makes a file of this name in its cache."""
    return _REVISION.fullmatch(text) is not None and ".." not in text and len(text) <= 200


def is_path(text: object) -> bool:
    """Whether a repository can hold a file of this name: relative, without ``..``, and it can be printed."""
    if not isinstance(text, str) or not text or not text.isprintable():
        return False
    parts = text.split("/")
    return not PurePosixPath(text).is_absolute() and not {"", ".", ".."} & set(parts)


def is_network(name: object) -> bool:
    """Whether this can be the name of an architecture of a library, and no path or address."""
    return isinstance(name, str) and _NETWORK.fullmatch(name) is not None


def is_plain(name: str) -> bool:
    """Whether a name consists of printable ASCII, so that it looks like what it is."""
    return name.isascii() and name.isprintable()


def split_revision(name: str) -> tuple[str, str | None]:
    """The parts of ``org/model@revision``; a folder has no revision, whatever its name."""
    repo, at, revision = name.rpartition("@")
    return (repo, revision) if at and not Path(name).expanduser().is_dir() else (name, None)


class DatasetName(NamedTuple):
    """``id:config@revision``, of which all but the id may be missing."""

    id: str
    config: str | None
    revision: str | None


def split_dataset(name: str) -> DatasetName | None:
    """The parts of the name of a data set on the Hub; None if this is none."""
    found = _DATASET.fullmatch(name)
    if found is None or len(name) > _LONGEST_DATASET or not is_repo_id(found["id"]):
        return None
    return DatasetName(found["id"], found["config"], found["revision"])


def pasted(name: str) -> str:
    """An address of a page on the Hub as the id that it is about, with its revision; any other name as it is."""
    found = _PAGE.match(name.strip())
    if found is None:
        return name
    return f"{found['id']}@{found['revision']}" if found["revision"] else found["id"]


def require_model(repo: str) -> None:
    """Refuse at once what names no model: neither a folder that is there, nor an id of the Hub.

    Raises:
        RepoError: it is neither.
    """
    name, _ = split_revision(repo)
    if not Path(repo).expanduser().is_dir() and not is_repo_id(name):
        raise RepoError(
            f"{repo!r} is neither an existing folder nor a Hub id.",
            advice="Give the path of a model folder, or an id such as microsoft/resnet-50.",
        )


def require_dataset(name: str) -> None:
    """Refuse at once what names no images: no file or folder that is there, no pattern, and no data set of the Hub.

    Raises:
        ImagesError: it is none of these.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - which knows every name
    is_pattern = bool(set("*?[") & set(name))
    if not (os.path.lexists(path) or is_pattern or (split_dataset(name) and path.suffix not in _FILES)):
        raise no_dataset(printable(name, _LONGEST_DATASET))


def no_dataset(title: str) -> ImagesError:
    """What to say where there are no images of this name."""
    advice = "Give an existing folder, parquet files, a CSV list, or a Hub id such as ylecun/mnist."
    return ImagesError(f"{title!r} is neither an existing file or folder nor a Hub id.", advice=advice)
