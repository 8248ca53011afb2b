"""Reading what lies in a folder that a stranger may have filled: regular files inside of it, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from phard_hub.disk.reading import open_regular
from phard_hub.errors import ImagesError, PhardError
from phard_hub.report.wording import printable

_PATTERN = frozenset("*?[")
_SHOWN = 200
"""Characters of a path in an error."""


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        files: path below the folder, with ``/``, and bytes of each regular file, sorted.
        passed: how many entries were passed over, by the reason.
    """

    files: dict[str, int] = field(default_factory=dict)
    passed: Counter[str] = field(default_factory=Counter)


def scan(folder: Path) -> Found:
    """List the regular files at any depth; links are not followed and hidden entries are passed over.

    Raises:
        ImagesError: a folder cannot be read.
    """
    found, waiting = Found(), [""]
    while waiting:
        inside = waiting.pop()
        for entry in _entries(folder / inside):
            name = inside + entry.name
            if entry.name.startswith("."):
                found.passed["hidden"] += 1
            elif entry.is_symlink():
                found.passed["links"] += 1
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                found.files[name] = entry.stat(follow_symlinks=False).st_size
            else:
                found.passed["not regular files"] += 1
    found.files = dict(sorted(found.files.items()))
    return found


def matches(pattern: str) -> list[Path] | None:
    """What is no folder and fits a pattern with ``*``, ``?``, ``[...]`` and ``**``, sorted; None if it is no pattern.

    Links to folders are followed only where the pattern names them; hidden entries are found only where it does.

    Raises:
        ImagesError: a folder cannot be read.
    """
    if not _PATTERN & set(pattern) or os.path.lexists(pattern):
        return None
    parts = Path(pattern).parts
    literal = (os.path.lexists(Path(*parts[: k + 1])) for k in range(len(parts)))  # `my[1]data` is a folder's name, too
    first = next((k for k, there in enumerate(literal) if not there and _PATTERN & set(parts[k])), None)
    if first is None:
        return None
    top = Path(*parts[:first])
    return sorted(set(_matches(top, parts[first:]))) if os.path.isdir(top) else []  # noqa: PTH112 - which knows every name


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _matches(folder, rest or ("*",))
    for entry in _entries(folder):
        if entry.name.startswith(".") and not part.startswith("."):
            continue
        path, is_folder = folder / entry.name, entry.is_dir(follow_symlinks=False)
        if part == "**" and is_folder:
            yield from _matches(path, parts)
        elif fnmatchcase(entry.name, part) and is_folder and rest:
            yield from _matches(path, rest)
        elif fnmatchcase(entry.name, part) and not (rest or is_folder):
            yield path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise _cannot_read(folder, error) from error


def open_file(path: Path) -> BinaryIO:
    """Open a regular file.

    Raises:
        ImagesError: it is a link, a pipe or a device, or cannot be read.
    """
    try:
        return open_regular(path.parent, path.name)
    except OSError as error:
        raise no_file(path) if error.errno in (errno.ELOOP, errno.EINVAL) else _cannot_read(path, error) from error


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, of one that is larger than ``limit`` one byte more.

    Raises:
        ImagesError: it is a link, a pipe or a device, or cannot be read.
    """
    with open_file(path) as file:
        try:
            return file.read(limit + 1)
        except OSError as error:
            raise _cannot_read(path, error) from error


def is_file(path: Path) -> bool:
    """Whether a path is a regular file and no link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError as error:
        raise _cannot_read(path, error) from error


def no_file(path: Path) -> PhardError:
    """The error that says that a path is a link, a pipe or a device."""
    what = "a link" if path.is_symlink() else "no regular file"
    return ImagesError(f"{shown_path(path)} is {what}.", advice="Only regular files are read: copy it there.")


def shown_path(path: Path | str) -> str:
    """A path for an error."""
    return printable(str(path), _SHOWN)


def _cannot_read(path: Path, error: OSError) -> ImagesError:
    return ImagesError(
        f"Cannot read {shown_path(path)}: {error.strerror or 'it is gone'}.", advice="Check its permissions."
    )
