"""Files that are read only if they are what they seem: regular files inside of a folder."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

_NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_regular(folder: Path, name: str) -> BufferedReader:
    """Open a file below a folder without following a link and without touching a FIFO or a device.

    Args:
        folder: where to begin; it may be reached by links itself.
        name: of the file, with ``/`` where it lies deeper.

    Raises:
        OSError: it cannot be read, is no regular file, or a link is on the way; ``strerror`` says which.
    """
    path = str(folder / name)
    *between, last = name.split("/")
    if not {"", ".", ".."}.isdisjoint({*between, last}):
        raise OSError(errno.EINVAL, "it is no name of a file in the folder", path)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in between:
            place, above = _step(part, place, path, os.O_DIRECTORY), place
            os.close(above)
        _refuse_special(os.stat(last, dir_fd=place, follow_symlinks=False), path)  # to open a device may do something
        handle = _step(last, place, path, 0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(place)
    try:
        _refuse_special(os.fstat(handle), path)  # it was exchanged meanwhile
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _refuse_special(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", path)


def _step(name: str, place: int, path: str, more: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | _NO_LINK | more, dir_fd=place)
    except OSError as error:
        said = error.strerror
        with suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
                said = "it is a link"
        raise OSError(error.errno, said, path) from error


def read_regular(folder: Path, name: str, largest: int) -> bytes:
    """The bytes of a file below a folder, opened as `open_regular` does.

    Args:
        folder: where to begin.
        name: of the file.
        largest: bytes that it may have.

    Raises:
        OSError: as `open_regular`, or it has more bytes.
    """
    with open_regular(folder, name) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"it has more than {largest / 1e6:.3g} MB", str(folder / name))
    return content


def text_of(content: bytes) -> str:
    """Text in UTF-8, or in the UTF-16 that Windows editors and PowerShell write.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")
