"""Look at what a stranger wrote in a process of its own, with limits of time and memory and without a network.

A size that a file names can ask for any time and any memory, and the libraries believe it. So the audit runs in a
forked process: what it finds comes back line by line, and a limit that is reached is a finding that refuses. Network,
programs and exec are closed there, whatever key of a config the libraries follow.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from phard_hub.report.findings import error
from phard_hub.report.record import Finding

_ADVICE = "Do not use this model; a model in order is looked at within a fraction of this limit."
_CLOSED = (
    *("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "os.fork", "os.forkpty"),
)
_PATIENCE = 5  # seconds of the clock for each second of computing: the machine may be busy


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What looking at a model may take: seconds of computing, and bytes beyond what this process has already."""

    seconds: int
    memory: int


def within(limits: Limits, look: Callable[[], Iterable[Finding]], place: str) -> tuple[Finding, ...]:
    """The findings of ``look``, and one more if it ran into a limit or reached for what is closed.

    Where a system cannot fork, it runs here and without limits.

    Args:
        limits: of the process that looks.
        look: yields findings; nothing else that it does is seen outside.
        place: what the finding about a limit is about.
    """
    if not hasattr(os, "fork"):
        return tuple(look())
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _look_and_leave(limits, look, writer)
    os.close(writer)
    try:
        found = [Finding.from_json(line) for line in _lines(reader, limits.seconds * _PATIENCE)]
        complete = bool(found) and found[-1].id == _END.id and found[-1].file == ""
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if complete:
        return tuple(found[:-1])
    most = f"{limits.seconds} s of computing and {limits.memory / 1e9:.1f} GB"
    evidence = f"looking at it came to no end within {most}"
    return (*found, error("PH-A33", place, evidence, _ADVICE))


_END = Finding(id="PH-A99", severity="note", file="", evidence="", advice="")  # says that all was looked at


def _lines(reader: int, seconds: float) -> Iterator[bytes]:
    """The complete lines that come out of a pipe until it is closed or the time is over."""
    deadline, rest = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            block = os.read(reader, 2**16)
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            yield from lines


def _look_and_leave(limits: Limits, look: Callable[[], Iterable[Finding]], writer: int) -> NoReturn:
    """What the forked process does; it never returns into the program that forked it."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and ends this one
        faulthandler.disable()  # a crash becomes a finding
        gc.disable()  # a fourth of the time to import the libraries, whose objects all stay
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        sys.stdout = sys.stderr = os.fdopen(silence, "w")
        _compute_alone()
        _limit(limits)
        reached: list[str] = []
        sys.addaudithook(lambda event, given: _close(event, given, reached))
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            for finding in look():
                pipe.write(finding.model_dump_json() + "\n")
                pipe.flush()
            for what in reached[:3]:
                advice = "Do not use this model: its config leads the library elsewhere."
                pipe.write(error("PH-A34", "config.json", what, advice).model_dump_json() + "\n")
            pipe.write(_END.model_dump_json() + "\n")
        code = 0
    finally:
        os._exit(code)


def _compute_alone() -> None:
    """Use one thread: those that computed for the first process are not in a fork, and OpenMP would wait for them."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _close(event: str, given: tuple[object, ...], reached: list[str]) -> None:
    if event in _CLOSED:
        reached.append(f"looking at it led to {event} {given[:2]!r}")
        raise PermissionError(f"{event} is closed while a model is looked at")


def _limit(limits: Limits) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, most))
    pages = Path("/proc/self/statm")  # elsewhere only the time is limited
    if pages.exists():
        now = int(pages.read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + limits.memory, most))
