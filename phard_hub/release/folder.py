"""What lies in a folder that is about to be deployed: the hash of each file of the release, and what else there is."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from phard_hub.disk.reading import open_regular
from phard_hub.errors import InputError
from phard_hub.report.deployed import SIGNATURE_NAME, WEIGHTS_NAME, Deployed, is_signed
from phard_hub.report.record import LARGEST_REPORT

MOST_FILES = 10_000
"""Files that are listed; a release has about ten."""
_KINDS = {stat.S_IFLNK: "it is a link", stat.S_IFREG: "", stat.S_IFDIR: ""}


def look(folder: Path) -> Deployed:
    """Hash the files of a release, and list all others. Links are not followed, and a FIFO is not waited for.

    Raises:
        InputError: the folder cannot be read, or holds far more files than a release.
    """
    files: dict[str, str] = {}
    others: list[str] = []
    unreadable: dict[str, str] = {}
    for path, problem in _listed(folder):
        if problem:
            unreadable[path] = problem
        elif is_signed(path):
            try:
                files[path] = file_sha256(folder, path, largest=None if path == WEIGHTS_NAME else LARGEST_REPORT)
            except OSError as error:
                unreadable[path] = str(error.strerror)
        elif path != SIGNATURE_NAME:
            others.append(path)
    return Deployed(place=_text(str(folder)), files=files, others=tuple(others), unreadable=unreadable)


def file_sha256(folder: Path, name: str, *, largest: int | None = None) -> str:
    """The sha256 of a file, opened as `open_regular` does and with its errors; ``largest`` bytes of it, or any size."""
    with open_regular(folder, name) as file:
        if largest is not None and os.fstat(file.fileno()).st_size > largest:
            raise OSError(errno.EFBIG, f"it has more than {largest / 1e6:.3g} MB", str(folder / name))
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    """(path, why it cannot be read) of all that lies below a folder, in order; folders only where they are links."""
    count = 0
    try:
        for place, folders, files in os.walk(folder, onerror=_refuse):
            if Path(place) == folder:  # no library looks into these, and .git can be large
                folders[:] = [name for name in folders if not name.startswith(".")]
            folders.sort()
            for name in sorted([*files, *folders]):
                path = Path(place) / name
                kind = stat.S_IFMT(path.lstat().st_mode)
                if kind == stat.S_IFDIR:
                    continue
                if (count := count + 1) > MOST_FILES:
                    problem = f"{folder} holds more than {MOST_FILES} files."
                    raise InputError(problem, advice="Give the folder of one release.")
                yield _text(path.relative_to(folder).as_posix()), _KINDS.get(kind, "it is no regular file")
    except OSError as error:
        problem = f"Cannot read {error.filename or folder}: {error.strerror}."
        raise InputError(problem, advice="Give a folder that `phard harden` wrote, and that you may read.") from error


def _refuse(error: OSError) -> None:
    raise error


def _text(name: str) -> str:
    """A name as text; the disk may hold bytes that are none."""
    return name.encode(errors="replace").decode()
