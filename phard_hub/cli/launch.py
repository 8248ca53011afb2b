"""The verb that starts several processes for another verb: one line, and the exit codes of one process.

The launchers of torch and accelerate start processes, too, on many machines and with many options; but an elastic
launcher makes 1 of each exit code but 0, and may end the first process while it says what is wrong.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Annotated

import typer

from phard_hub.errors import LAUNCHED, LOST, InputError, NotEvaluatedError, harmless

SECONDS = 10.0
"""How long the others have to end when one has."""
_SHARED = ("measure", "harden", "plant", "compare", "quickstart")
_LAST_LINES = 5


def launch(
    processes: Annotated[int, typer.Argument(min=1, max=1024, help="How many: the number of GPUs, or of CPU cores.")],
    command: Annotated[
        list[str], typer.Argument(metavar="verb ...", help="The verb and its options, such as `harden org/model ...`.")
    ],
) -> None:
    """Start a verb in several processes on this machine, which share its work: one for each GPU, or on CPUs.

    Exits with the code of the verb. If one process dies, the others are ended; the same command continues, also with
    another number of processes. On several machines, start `torchrun` with `-m phard_hub` on each.
    """
    if command[0] not in _SHARED:
        raise InputError(f"{command[0]} is done by one process.", advice=f"Launch one of {', '.join(_SHARED)}.")
    raise typer.Exit(_Group(processes, command).wait())


class _Group:
    """Processes that do one job."""

    def __init__(self, count: int, command: Sequence[str]) -> None:
        with ExitStack() as files:
            # The first one talks; what another one says is shown if it failed alone.
            self.said: list[IO[str] | None] = [None]
            self.said += [files.enter_context(tempfile.TemporaryFile("w+", errors="replace")) for _ in range(count - 1)]
            self.files = files.pop_all()
        port = str(free_port())
        self.processes = [
            subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "phard_hub", *command],
                env=environment_of(rank, count, port),
                stdout=None if rank == 0 else subprocess.DEVNULL,
                stderr=self.said[rank],
                process_group=0,  # the terminal's Ctrl-C reaches this process alone, which passes it on once
            )
            for rank in range(count)
        ]

    def wait(self) -> int:
        """The exit code of the job, when all have ended."""
        with self.files, _passed_on(self.processes):
            first = self._first_that_fails()
            if first is None:
                return 0
            ended = self._ended_by_itself()
            culprit = next((rank for rank in ended if self.processes[rank].returncode != LOST), first)
            code = self.processes[culprit].returncode
            if 0 < code == self.processes[0].returncode != LOST:
                return code  # it has said why
            if (file := self.said[culprit]) and 0 < code != LOST:
                file.seek(0)
                for line in file.read().splitlines()[-_LAST_LINES:]:
                    typer.echo(harmless(line), err=True)
                return code
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else "lost another process"
        problem = f"Process {culprit} of {len(self.processes)} {how}."
        raise NotEvaluatedError(problem, advice="Give the same command again: it continues where it can.")

    def _first_that_fails(self) -> int | None:
        """The number of the first process that ends with another code than 0; None if all end well."""
        while any(process.poll() is None for process in self.processes):
            failed = [rank for rank, process in enumerate(self.processes) if process.poll()]
            if failed:
                return failed[0]
            time.sleep(0.05)
        return next((rank for rank, process in enumerate(self.processes) if process.returncode), None)

    def _ended_by_itself(self) -> list[int]:
        """The processes that fail by themselves after the first one did, mostly for the same reason; end the others."""
        deadline = time.monotonic() + SECONDS
        failed: list[int] = []
        for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
            while any(process.poll() is None for process in self.processes) and time.monotonic() < deadline:
                time.sleep(0.05)
            failed = failed or [rank for rank, process in enumerate(self.processes) if process.poll()]
            for process in self.processes:
                if process.poll() is None:
                    end(process)
            deadline = time.monotonic() + 2
        for process in self.processes:
            process.wait()
        return failed


def environment_of(rank: int, count: int, port: str) -> dict[str, str]:
    """What torch.distributed reads: a rank, and where the processes meet; on CPUs, one thread each."""
    names = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    return {"OMP_NUM_THREADS": "1", **os.environ, **names, LAUNCHED: "1"}


def free_port() -> int:
    """A port of this machine on which nobody listens at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass Ctrl-C and termination on to the processes, and wait for what they make of it."""

    def tell(number: int, _frame: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    former = {each: signal.signal(each, tell) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
