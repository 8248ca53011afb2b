"""A private copy of the files that are hashed, so that what is audited is what is loaded, whatever happens meanwhile.

Only regular files inside a folder are taken. A link that leads out of it may show a secret to whoever reads the
release, a FIFO never ends, and a size that nobody expects fills the memory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

from phard_hub.disk.atomic import scratch_folder
from phard_hub.disk.reading import open_regular
from phard_hub.errors import OutputError

MOST_FILES = 100_000
_BLOCK = 2**20


class PrivateFolder:
    """A new folder that only this user may enter; it is removed when nobody holds this object any more.

    After a kill, the next one that is made removes it.
    """

    def __init__(self) -> None:
        try:
            self.path, handle = scratch_folder("phard-model-")
        except OSError as error:
            raise _no_place(error) from error
        self._remove = weakref.finalize(self, _remove, self.path, handle)


def _remove(folder: Path, handle: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


class NotTakenError(Exception):
    """Why a file is not taken; the message is the evidence."""


class TooLargeError(NotTakenError):
    """It has more bytes than a file of its name can need."""


def take(origin: Path, name: str, target: Path, *, largest: int | None = None) -> str:
    """Copy a file of a folder into another folder, and return the sha256 of what was copied.

    Args:
        origin: the folder.
        name: of a file in it.
        target: the private folder.
        largest: bytes that the file may have; None for any size.

    Raises:
        NotTakenError: it is no regular file inside the folder, or too large.
        OSError: it cannot be read.
        OutputError: the copy cannot be written.
    """
    with open_inside(origin, name) as source:
        size = os.fstat(source.fileno()).st_size
        if largest is not None and size > largest:
            raise TooLargeError(f"{name} ({size / 1e6:.0f} MB)")
        digest = hashlib.sha256()
        try:
            with (target / name).open("xb") as copy:
                for block in iter(lambda: source.read(_BLOCK), b""):
                    digest.update(block)
                    copy.write(block)
        except OSError as error:
            raise _no_place(error) from error
    return digest.hexdigest()


def open_inside(origin: Path, name: str) -> BinaryIO:
    """Open a file without following a link out of the folder, or out of that part of the Hub's cache that is its own.

    Raises:
        NotTakenError: it is no regular file inside the folder.
        OSError: it cannot be read.
    """
    path = (origin / name).resolve()
    home = _home(origin, path)
    if home is None:
        raise NotTakenError(f"is a link to {path}")
    try:
        return open_regular(home, path.relative_to(home).as_posix())
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise NotTakenError("is no regular file") from error
        raise


def _home(folder: Path, target: Path) -> Path | None:
    homes = [folder.resolve()]
    cache = homes[0].parent.parent  # the Hub's: models--org--name/snapshots/<commit>/file -> ../../blobs/<hash>
    if homes[0].parent.name == "snapshots" and cache.name.startswith("models--"):
        homes.append(cache / "blobs")
    return next((home for home in homes if target.is_relative_to(home)), None)


def listing(folder: Path) -> tuple[str, ...]:
    """The paths of the files below a folder, hidden ones too; links are not followed.

    Where there are more than `MOST_FILES`, one more than that is listed.
    """
    paths: list[str] = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        paths += [(Path(place) / name).relative_to(folder).as_posix() for name in sorted(files)]
        if len(paths) > MOST_FILES:
            break
    return tuple(paths[: MOST_FILES + 1])


def _no_place(error: OSError) -> OutputError:
    problem = f"Cannot copy the model's files to {tempfile.gettempdir()}: {error.strerror}."
    return OutputError(problem, advice="Make space there, or set TMPDIR to a folder on another disk.")
