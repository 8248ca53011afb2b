"""A few processes that work through a list of jobs, of which any may die without taking the others along."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from phard_hub.errors import InterruptedRunError, NotEvaluatedError, PhardError

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Died:
    """What is left of a process that ended in the middle of a job."""

    code: int

    def __str__(self) -> str:
        """In words."""
        if self.code < 0:
            return f"The process was killed by {signal.Signals(-self.code).name}; was there enough memory?"
        return f"The process ended with exit code {self.code}."


def in_processes(
    task: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result | Died]]:
    """Do all jobs in other processes, and give the results as they come.

    Ctrl-C, and leaving the iteration early, stop the processes as Ctrl-C would stop each of them, and wait until
    they have ended. If this process is killed, they stop as well.

    Args:
        task: done to each job; it and the jobs are pickled.
        jobs: in the order in which they are begun.
        workers: processes at most.

    Raises:
        PhardError: that the task raised; the other processes are stopped.
    """
    waiting = deque(jobs)
    crew = [_Worker(task) for _ in range(min(workers, len(jobs)))]
    try:
        while waiting or any(worker.job is not None for worker in crew):
            ready = wait([worker.connection for worker in crew])
            for place, worker in enumerate(crew):
                if worker.connection not in ready:
                    continue
                job, result = worker.take()
                if isinstance(result, Died):
                    crew[place] = worker = _Worker(task)
                elif waiting:
                    worker.give(waiting.popleft())
                if job is not None and not isinstance(result, _Ready):
                    yield job, result
    finally:
        for worker in crew:
            worker.stop()
        for worker in crew:
            worker.process.join()


class _Ready:
    """Said by a process that can be given a job, and be stopped."""


class _Worker(Generic[Job, Result]):
    """One process and what it is doing."""

    def __init__(self, task: Callable[[Job], Result]) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(task, theirs))
        with _interrupts_held():
            self.process.start()
        theirs.close()
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        """Begin a job."""
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # it died just now, which `take` sees
            self.connection.send(job)

    def take(self) -> tuple[Job | None, Result | Died | _Ready]:
        """What the process says, and on which job.

        Raises:
            PhardError: that the task raised, or because the process could not begin.
        """
        job, self.job = self.job, None
        try:
            result = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            died = Died(self.process.exitcode or 0)
            if job is None:
                raise NotEvaluatedError(f"No other process can be started. {died}", advice="Look above.") from None
            return job, died
        if isinstance(result, PhardError):
            raise result
        return job, result

    def stop(self) -> None:
        """End the process: at once if it has no job, else as soon as it has kept what can be continued."""
        self.connection.close()
        if self.job is not None and self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGINT)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits; a process that is started meanwhile inherits that, and hears it when it is ready to stop."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(task: Callable[[Job], Result], connection: Connection) -> None:
    """The life of a process: jobs until there is nobody left to give one."""
    os.setpgid(0, 0)  # the terminal's Ctrl-C reaches the parent alone, which passes it on once
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt, InterruptedRunError):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell put into the background
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        connection.send(_Ready())
        while True:
            job = connection.recv()
            try:
                result: Result | PhardError = task(job)
            except InterruptedRunError:
                raise
            except PhardError as error:
                result = error
            connection.send(result)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it leaves already, and would do so with a traceback


def _stop_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGINT)
