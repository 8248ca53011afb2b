"""The tab Check: look at a stranger's model in a process of its own, and tell how far that is.

The page never opens the model itself. The process gets a folder of its own that is removed afterwards, no token, and
limits; one that takes too long, too much disk, or that nobody waits for any more, is ended with all that it started.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phard_hub.errors import InputError
from phard_hub.report import AuditRecord, Report
from spaces_app.processes import SPARE

DIGITS = "digits"
AUDIT_SECONDS = 120
BUDGETS = (30, 300)
"""The seconds that a visitor may ask for."""
MOST_DISK = 2 * 2**30
_POLL = 0.25
_ID = re.compile(r"[A-Za-z0-9]\w*(?:[.-]\w+)*/\w+(?:[.-]\w+)*(?:@[\w.][\w./-]*)?", re.ASCII)
_DATA = re.compile(r"[A-Za-z0-9]\w*(?:[.-]\w+)*/\w+(?:[.-]\w+)*(?::[\w.-]+)?(?:@[\w.][\w./-]*)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to check.

    Attributes:
        repo: id on the Hub, as ``org/model`` or ``org/model@revision``; None for a zip.
        archive: a zip of a model folder; None for an id.
        images: what to measure with: `DIGITS`, the id of a data set, or the path of an uploaded zip of class folders;
            None to only audit. What a visitor writes is a string, and so never a path.
        budget: seconds that measuring may take.
    """

    repo: str | None = None
    archive: Path | None = None
    images: str | Path | None = None
    budget: float = 60

    def to_json(self) -> str:
        """The request as the process reads it.

        Raises:
            InputError: there is no model, or a name is none of the Hub.
        """
        if self.archive is None and (not _ID.fullmatch(self.repo or "") or ".." in (self.repo or "")):
            problem = f"{self.repo!r} is no id of a model on the Hub." if self.repo else "There is no model to check."
            raise InputError(problem, advice="Give an id such as microsoft/resnet-50, or upload the zip of a folder.")
        images = str(self.images.resolve()) if isinstance(self.images, Path) else self.images
        if isinstance(self.images, str) and not (self.images == DIGITS or _names_data(self.images)):
            raise InputError(f"{self.images!r} is no id of a data set on the Hub.", advice="Give one as org/name.")
        repo, _, revision = (self.repo or "").partition("@")
        budget = min(max(self.budget, BUDGETS[0]), BUDGETS[1])
        fields = {"repo": repo or None, "revision": revision or None, "images": images, "budget": budget}
        archive = None if self.archive is None else str(self.archive.resolve())
        return json.dumps({**fields, "archive": archive, "seconds": self.seconds})

    @property
    def seconds(self) -> int:
        """After how many the process is ended."""
        return AUDIT_SECONDS + (0 if self.images is None else int(min(self.budget, BUDGETS[1])))


def _names_data(name: str) -> bool:
    """Whether this is the id of a data set on the Hub, which no name of a file is."""
    return bool(_DATA.fullmatch(name)) and ".." not in name and not name.endswith(".zip")


@dataclass(frozen=True)
class Step:
    """How far a check is. What is not known yet is None; ``error`` ends it."""

    doing: str
    done: int = 0
    total: int = 1
    audit: AuditRecord | None = None
    report: Report | None = None
    error: str | None = None
    ended: bool = False


def check(request: Request) -> Generator[Step, None, None]:
    """Check a model, and yield a step whenever there is news, at least every few moments.

    Whoever stops asking ends the process; so does an error here.

    Raises:
        InputError: the request is none.
    """
    asked, worker = request.to_json(), SPARE.take()
    try:
        worker.ask(asked)
        yield from _follow(worker.process, worker.folder, request.seconds)
    finally:
        worker.end()
        SPARE.prepare()


def _follow(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> Iterator[Step]:
    """What the process says, until it ends or has to."""
    deadline, step = time.monotonic() + seconds, Step("starting a process for it")
    yield step
    for line in _lines(process):
        if line is not None:
            step = _after(step, json.loads(line))
        if time.monotonic() > deadline:
            step = _failed(step, f"This took more than {seconds:.0f} seconds, and was ended.")
        elif _size(folder) > MOST_DISK:
            step = _failed(step, f"This takes more than {MOST_DISK / 2**30:.0f} GiB of disk, and was ended.")
        if step.error is not None:
            break
        yield step
    if step.error is None and process.wait() != 0:
        step = _failed(
            step, "The process that looked at this model was ended by the system: it took too much, or crashed."
        )
    yield Step("", audit=step.audit, report=step.report, error=step.error, ended=True)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
    """The lines that a process writes until it ends; None when there was none for a moment."""
    assert process.stdout is not None
    pipe, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(_POLL):
                yield None
                continue
            block = os.read(pipe, 2**16)
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            yield from lines


def _after(step: Step, said: dict[str, Any]) -> Step:
    (kind, content), *_ = said.items()
    if kind == "progress":
        return Step(content[0], content[1], content[2], step.audit, step.report)
    if kind == "audit":
        return Step(step.doing, audit=AuditRecord.from_fields(content), report=step.report)
    if kind == "report":
        return Step(step.doing, audit=step.audit, report=Report.from_fields(content))
    return _failed(step, str(content))


def _failed(step: Step, why: str) -> Step:
    return Step(step.doing, audit=step.audit, report=step.report, error=why)


def _size(folder: Path) -> int:
    size = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                size += Path(place, name).lstat().st_size
    return size
