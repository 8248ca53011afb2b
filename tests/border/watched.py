"""Note what no command may do with a file that a stranger wrote, by an audit hook of Python.

    python -m tests.border.watched NOTES FOLDER [FOLDER ...] -- audit model

runs a command of `phard`; `watching` watches a block of a test. Noted are, one line each in the file NOTES: code that
is run, compiled or imported from one of the FOLDERs, globals looked up for a pickle, other programs, sockets, libraries
loaded from a FOLDER, and files opened outside of the FOLDERs, of Python's own folders, of the project and of what a
system has for everyone to read.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_SYSTEM = (
    "/dev",
    "/proc/self",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/stat",
    "/proc/sys",
    "/sys",
)
_CONFIGS = ("/etc/localtime", "/etc/mime.types", "/etc/ssl", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/os-release")
_SHARED = ("/usr/lib", "/usr/share", "/usr/local/lib", "/usr/local/share", "/usr/etc", "/usr/local/etc")
_SECRETS = ("/proc/self/environ", "/proc/self/mem")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
_HELPERS = ("fc-list",)  # matplotlib asks it once for the fonts of the machine
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto")


class _Watch(threading.local):
    """The hook of this process; it cannot be taken away again, and forked processes keep it."""

    added = False
    now: tuple[int, list[str], list[str]] | None = None  # where to note, the strangers' folders, what may be opened

    def hook(self, event: str, given: tuple[object, ...]) -> None:
        """Note an event, if this thread is watched; what the hook itself opens is no concern of its own."""
        watched, self.now = self.now, None
        if watched is None:
            return
        log, strangers, allowed = watched
        try:
            line = _run(event, given, strangers) or _reached(event, given, allowed)
            if line:
                os.write(log, f"{line}\n".encode(errors="backslashreplace"))
        finally:
            self.now = watched


_watch = _Watch()


@contextmanager
def watching(notes: Path, folders: Sequence[Path]) -> Iterator[None]:
    """Watch what this thread does in a block, and what it forks."""
    strangers = [str(folder.resolve()) for folder in folders]
    log = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if not _Watch.added:
        sys.addaudithook(_watch.hook)
        _Watch.added = True
    _watch.now = (log, strangers, [*strangers, *_everyones()])
    try:
        yield
    finally:
        _watch.now = None
        os.close(log)


def _run(event: str, given: tuple[object, ...], strangers: Sequence[str]) -> str:
    """What of a stranger's is run or loaded; empty if nothing is."""
    if event == "exec" and _inside(name := getattr(given[0], "co_filename", ""), strangers):
        return f"runs {name}"
    loaded = {"import": given[1:2], "ctypes.dlopen": given[:1]}.get(event, ())
    if any(_inside(path, strangers) for path in loaded):
        return f"{event} {given[:2]!r}"
    return f"unpickles {given[0]}.{given[1]}" if event == "pickle.find_class" else ""


def _reached(event: str, given: tuple[object, ...], allowed: Sequence[str]) -> str:
    """What is reached for outside of the allowed places; empty if nothing is."""
    if (event in _PROGRAMS and given[0] not in _HELPERS) or event in _NETWORK:
        return f"{event} {given[:2]!r}"
    if event != "open" or not isinstance(given[0], str | bytes):
        return ""
    secret = os.fsdecode(given[0]) in _SECRETS or _inside(given[0], _SECRETS)
    return f"opens {os.fsdecode(given[0])}" if secret or not _inside(given[0], allowed) else ""


def _inside(path: object, places: Sequence[str]) -> bool:
    name = os.fsdecode(path) if isinstance(path, str | bytes) else ""
    # links in /proc are another place for each process, and are told by their names
    real = (name if name.startswith("/proc/") else os.path.realpath(name)) if name else ""
    return any(real == place or real.startswith(place + os.sep) for place in places)


def _everyones() -> list[str]:
    """Where any program of this machine may read, and where this one keeps what is its own."""
    own: list[object] = [sys.prefix, sys.base_prefix, *site.getsitepackages(), *sysconfig.get_paths().values()]
    project = Path(__file__).parents[2]
    fonts = Path(os.environ.get("MPLCONFIGDIR") or Path.home() / ".cache" / "matplotlib")
    own += [project, fonts, tempfile.gettempdir(), os.environ.get("HF_HOME", "")]
    places = [*own, *_SYSTEM, *_CONFIGS, *_SHARED]
    return [
        str(place) if str(place).startswith("/proc/") else os.path.realpath(str(place))
        for place in places
        if str(place)
    ]


def main() -> None:
    """Watch, then be `phard`."""
    split = sys.argv.index("--")
    notes, *folders = map(Path, sys.argv[1:split])
    sys.argv = ["phard", *sys.argv[split + 1 :]]
    with watching(notes, folders):
        from phard_hub.__main__ import main as phard

        phard()


if __name__ == "__main__":
    main()
