"""How far the work is, on stderr: bars on a terminal, and lines where it is a log."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from phard_hub.errors import harmless

if TYPE_CHECKING:
    from phard_hub.job import Progress

_SECONDS = 10.0
_SHARE = 0.05
_LEAST_SECONDS = 1.0  # or what takes a moment would fill the log


def is_first_process() -> bool:
    """Whether this process is the one that talks, of all that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def show_progress() -> Iterator[Progress]:
    """What the steps of a job report to: bars on a terminal, lines in a log, nothing in a process that helps along.

    What the library says on the way is shown between them.
    """
    if not is_first_process():
        yield _nothing
        return
    library, said = logging.getLogger("phard_hub"), _Said()
    level = library.level
    library.addHandler(said)
    library.setLevel(logging.INFO)
    try:
        with _bars() if sys.stderr.isatty() else _lines() as progress:
            yield progress
    finally:
        library.removeHandler(said)
        library.setLevel(level)


class _Said(logging.Handler):
    """A line on stderr for each message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message."""
        typer.echo(harmless(record.getMessage()), err=True)


def _nothing(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""


@contextmanager
def _bars() -> Iterator[Progress]:
    """A progress bar with the time left for each thing that is being done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<22}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    display = Bars(*columns, console=Console(stderr=True))
    tasks: dict[str, Any] = {}

    def progress(what: str, done: int, total: int) -> None:
        if not tasks:
            display.start()
        # The same thing done a second time (measuring before and after) gets a bar of its own.
        if what not in tasks or done < display.tasks[tasks[what]].completed:
            tasks[what] = display.add_task(harmless(what), total=total)
        display.update(tasks[what], completed=done)

    try:
        yield progress
    finally:
        if tasks:  # or it would print an empty line before an error
            display.stop()


@dataclass
class _Task:
    """One thing that is being done: where and when it began, and what its last line said."""

    first: int
    began: float
    done: int
    said: int
    said_at: float


@contextmanager
def _lines() -> Iterator[Progress]:
    """A line for each thing that begins or ends, and every 10 seconds or 5 %, for logs of CI, nohup and Slurm."""
    tasks: dict[str, _Task] = {}

    def progress(what: str, done: int, total: int) -> None:
        now, task = time.monotonic(), tasks.get(what)
        if task is None or done < task.done:
            tasks[what] = task = _Task(first=done, began=now, done=done, said=done, said_at=now)
            due = True
        else:
            waited = now - task.said_at
            further = done - task.said >= _SHARE * total and waited >= _LEAST_SECONDS
            due = done > task.said and (done == total or further or waited >= _SECONDS)
        task.done = done
        if due:
            task.said, task.said_at = done, now
            typer.echo(harmless(f"{what}: {done} of {total}{_left(task, total, now)}"), err=True)

    yield progress


def _left(task: _Task, total: int, now: float) -> str:
    """How long the rest takes if it goes on as it went; nothing where that is not known yet, or nothing is left."""
    if not task.first < task.done < total:
        return ""
    seconds = (now - task.began) / (task.done - task.first) * (total - task.done)
    return f", {timedelta(seconds=round(seconds))} left"
