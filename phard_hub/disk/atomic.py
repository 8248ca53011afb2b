"""Files and folders that appear whole or not at all.

What is written lies beside its place until it is complete, as ``.name.<8 hex digits>.new``, and is then put there in
one step. So a kill at any moment leaves the old version or the new one. What it leaves besides is removed by whoever
writes to the same place next; a lock tells it from what another process is writing at this moment.

A former folder and the new one change places in one step where the system can do that (Linux: ``renameat2``). Elsewhere
the former one is called ``.name.<8 hex digits>.old`` for a moment, and `restore` brings it back after a kill.

A place that is a link is refused: following it would write where nobody looks. Links on the way to it are followed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phard_hub.errors import OutputError

_PART_IS_FILE = "Part of the path is a file: choose another folder."
NO_SPACE = "Free some space or write to another disk."
_ADVICE = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: "Your quota is used up: free some space or write to another disk.",
    errno.EFBIG: "The file size limit is reached (see `ulimit -f`).",
    errno.ENOTDIR: _PART_IS_FILE,
    errno.EEXIST: _PART_IS_FILE,
    errno.EROFS: "The disk is read-only: choose another folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}
_OTHER_ADVICE = "Choose a folder that you may write to."
_NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def check_place(path: Path) -> None:
    """Find out before long work whether `write_text` could write this file; leaves nothing behind.

    Raises:
        OutputError: it could not.
    """
    with as_output_error(path):
        _refuse_other(path, folder=False)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def check_folder(path: Path) -> None:
    """Refuse a place where `new_folder` could not put a folder because something else lies there.

    Raises:
        OutputError: it is a link or a file.
    """
    with as_output_error(path):
        _refuse_other(path, folder=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, in place of a former one.

    Raises:
        OutputError: it cannot be written, or there is a folder or a link of this name. What was there stays.
    """
    with as_output_error(path):
        _refuse_other(path, folder=False)
        _clean(path)
        with _beside(path, lambda fresh: os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NO_LINK, 0o666)) as (
            fresh,
            handle,
        ):
            left = memoryview(content)
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
            fresh.replace(path)
            _sync(path.parent)


@contextmanager
def new_folder(path: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """A folder to fill. It takes the place of ``path`` when the block ends, and vanishes when the block fails.

    What was in a former folder is lost then: look first whether it may be.

    Args:
        path: the folder to be; the folders above it are made where they are missing.
        mode: permissions of it, less the umask.

    Raises:
        OutputError: it cannot be written, or there is a file or a link of this name. What was there stays.
    """
    path = path.absolute()
    with as_output_error(path):
        _refuse_other(path, folder=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        restore(path)
        _clean(path)

        def make(fresh: Path) -> int:
            fresh.mkdir(mode)
            return os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)

        with _beside(path, make) as (fresh, _):
            yield fresh
            _sync_all(fresh)
            _put(fresh, path)


def restore(path: Path) -> None:
    """Bring a former folder back that a kill left under another name; to be called before looking for it."""
    if os.path.lexists(path):
        return
    with suppress(OSError):
        former = [each for each in _left(path, ".old") if each.is_dir() and not each.is_symlink()]
        if former:
            max(former, key=lambda each: each.stat().st_mtime_ns).rename(path)


def private_folder(path: Path) -> None:
    """Make a folder that only this user may enter, or check the one that is there.

    Raises:
        OutputError: it cannot be made, or somebody else can write to it.
    """
    with as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean(path)
        with suppress(FileExistsError):
            path.mkdir(0o700)
    check_private(path)


def check_private(path: Path) -> None:
    """Refuse a folder in which somebody else could have written or could write.

    Raises:
        OutputError: it is a link or no folder, of another user, or others may write to it.
    """
    with as_output_error(path):
        found = path.lstat()
    why = ""
    if not stat.S_ISDIR(found.st_mode):
        why = "is a link" if stat.S_ISLNK(found.st_mode) else "is no folder"
    elif found.st_uid != os.geteuid():
        why = "belongs to another user"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"can be written by others (its mode is {stat.S_IMODE(found.st_mode):03o})"
    if why:
        advice = "Remove it if you did not make it so, and start again; or write to another place."
        raise OutputError(f"{path} {why}, so what lies there cannot be relied on.", advice=advice)


def scratch_folder(prefix: str) -> tuple[Path, int]:
    """A new folder for temporary files that only this user may enter, and an open handle that holds its lock.

    What killed processes left of folders with this prefix is removed first. Whoever is done with the folder removes it
    and closes the handle.

    Raises:
        OSError: it cannot be made.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError):
            _remove_unlocked(left)
    while True:
        fresh = Path(tempfile.mkdtemp(prefix=prefix))  # with mode 0700
        # Before it is locked, another process may take it for what a kill had left, and remove it.
        with suppress(FileNotFoundError):
            handle = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)
            if _lock(handle) and _is(handle, fresh):
                return fresh, handle
            os.close(handle)


def discard(path: Path) -> None:
    """Remove a folder that is not needed any more, if there is one, and what kills left of it.

    For all who look, it goes in one step.
    """
    _clean(path)
    with suppress(OSError):
        gone = _fresh_name(path)
        path.rename(gone)
        _remove(gone)


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Say what to do about a disk that does not take what is written to ``path``."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, _OTHER_ADVICE)
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.", advice=advice) from error


def _refuse_other(path: Path, *, folder: bool) -> None:
    """Nothing is put in the place of a link, a device, or a folder where a file is meant, or the reverse."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        advice = "Give the place that it leads to, or remove it."
        raise OutputError(f"Cannot write {path}: it is a link to {path.readlink()}.", advice=advice)
    if folder and not stat.S_ISDIR(mode):
        raise OutputError(f"Cannot write {path}: it is a file.", advice="Give the name of a folder.")
    if not folder and not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise OutputError(f"Cannot write {path}: it is {what}.", advice="Give the name of a file.")


@contextmanager
def _beside(path: Path, make: Callable[[Path], int]) -> Iterator[tuple[Path, int]]:
    """Something new beside a place, locked; whatever happens, it is not left behind under its own name."""
    while True:
        fresh = _fresh_name(path)
        try:
            handle = make(fresh)
        except FileExistsError:
            continue
        _lock(handle)
        if _is(handle, fresh):
            break
        os.close(handle)  # before it was locked, another process took it for what a kill had left
    try:
        yield fresh, handle
    finally:
        _remove(fresh)
        os.close(handle)


def _fresh_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")


def _lock(handle: int) -> bool:
    """Lock what is open, for as long as it is; False where it is locked or where the disk has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is(handle: int, path: Path) -> bool:
    """Whether what is open still has this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def _clean(path: Path) -> None:
    """Remove what kills left beside a place; what cannot be locked stays, because somebody may be writing it."""
    endings = (".new", ".old") if os.path.lexists(path) else (".new",)
    with suppress(OSError):
        for found in _left(path, *endings):
            with suppress(OSError):
                _remove_unlocked(found)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | _NO_LINK)
    try:
        if os.fstat(handle).st_uid == os.geteuid() and _lock(handle):
            _remove(path)
    finally:
        os.close(handle)


def _left(path: Path, *endings: str) -> list[Path]:
    """What lies beside a place under the names that are given here."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}({'|'.join(map(re.escape, endings))})")
    return [each for each in path.parent.iterdir() if name.fullmatch(each.name)]


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)


def _put(fresh: Path, path: Path) -> None:
    """Put a folder in its place; a former one is then under the fresh name, or gone."""
    try:
        fresh.rename(path)  # where nothing or an empty folder is
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(fresh, path):
            _put_in_two_steps(fresh, path)
    _sync(path.parent)


def _put_in_two_steps(fresh: Path, path: Path) -> None:
    former = fresh.with_suffix(".old")
    path.rename(former)
    try:
        fresh.rename(path)
    except BaseException:
        former.rename(path)
        raise
    _sync(path.parent)
    _remove(former)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where the system or the disk cannot."""
    at_here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(at_here, os.fsencode(one), at_here, os.fsencode(other), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync_all(folder: Path) -> None:
    """Wait until the disk has all files below a folder, and their names."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some disks cannot do that for folders
            raise
    finally:
        os.close(handle)
