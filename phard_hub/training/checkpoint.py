"""The state of a training run on the disk: numbers as JSON, tensors as safetensors, nothing that could run.

    .out.<hash>.run/        the job's; only this user may enter it
      feature-shift/        one of its trainings
        state.json          a record: the step, the curves, the counters
        state.safetensors   weights, averages, momentum, generators

A state that lies here may come from anybody, such as with an archive of models. So it is read as strictly as a model
is: it fits the run that goes on with it, or it is refused as a whole. Settings are never taken from it. What nobody can
tell is whether numbers that fit were forged: whoever may write to this folder decides the weights, as whoever may write
to the release does.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from phard_hub.disk.atomic import check_private, restore
from phard_hub.errors import StateError
from phard_hub.models.kept import Names, read_kept, write_kept
from phard_hub.report.base import Count, Record
from phard_hub.report.record import TrainingPoint
from phard_hub.settings import Share

_LARGEST = 3.5e38  # about the largest number of 32 bits
FILES = Names(record="state.json", tensors="state.safetensors", largest=16 * 2**20)

_Line = Annotated[str, Field(pattern=r"\A[^\pC\p{Zl}\p{Zp}]*\z", max_length=1000)]
"""What goes into reports: without line breaks and other signs that speak to a terminal."""


class Kept(Record):
    """What is kept of a training besides its tensors.

    Attributes:
        schema_version: of this record and of the names of the tensors.
        step: the number of steps that are done.
        seconds: they took.
        slow_down: what the guard multiplied the learning rate with.
        curve: what was seen on the way.
        events: what the guard did.
        share: where the result lies between the start and the end of the training, once it is there.
        objective: counters and weights of the objective.
        scaler: of half precision.
    """

    schema_version: Literal[1]
    step: Count
    seconds: Annotated[float, Field(ge=0, le=1e10)]
    slow_down: Annotated[float, Field(gt=0, le=1)]
    curve: tuple[TrainingPoint, ...]
    events: tuple[_Line, ...]
    share: Share = 1.0
    objective: dict[str, Count | NonNegativeFloat]
    scaler: dict[str, Count | NonNegativeFloat]

    def misfit(self, live: Kept, steps: int) -> str:
        """Why no run of so many steps goes on from here; empty if it does."""
        if self.step > steps:
            return f"it is at step {self.step} of {steps}"
        seen = [0, *(point.step for point in self.curve)]
        if seen != sorted(set(seen)) or seen[-1] > self.step:
            return f"its curves are of other steps than the first {self.step}"
        if any(abs(value) > _LARGEST for point in self.curve for value in point.model_dump().values() if value):
            return "its curves hold numbers that training cannot come to"
        if len(self.events) > 2 * self.step:
            return f"it has {len(self.events)} events in {self.step} steps"
        for mine, theirs in ((live.objective, self.objective), (live.scaler, self.scaler)):
            if {name: type(value) for name, value in mine.items()} != {k: type(value) for k, value in theirs.items()}:
                return f"it has the numbers {', '.join(theirs)[:100]} and not {', '.join(mine)}"
        return ""


def write_state(path: Path, record: Kept, tensors: Mapping[str, Tensor]) -> None:
    """Write a state in place of the one before, as a whole or not at all.

    Args:
        path: where it lies; its folder is made for this user alone.
        record: numbers and text.
        tensors: by name; they are about five times the size of the model.

    Raises:
        OutputError: it cannot be written, or others can write to its folder.
    """
    write_kept(path, FILES, record, tensors)


def read_state(
    path: Path, expected: Mapping[str, Tensor], *, optional: Collection[str] = ()
) -> tuple[Kept, dict[str, Tensor]] | None:
    """Read a state; None where there is none.

    Args:
        path: where it lies.
        expected: tensors like those that it has to hold, by name.
        optional: names of these that it may lack.

    Raises:
        OutputError: others can write to its folder.
        StateError: it is broken, or of another run.
    """
    if not os.path.lexists(path.parent):
        return None
    check_private(path.parent)
    restore(path)
    if not os.path.lexists(path):
        return None
    try:
        return read_kept(path, FILES, Kept, lambda _record: expected, optional=optional)
    except ValueError as error:
        raise broken(path, str(error)) from error


def broken(path: Path, why: str) -> StateError:
    """The error for a state that cannot be continued."""
    return StateError(f"The state of the run in {path} cannot be continued: {why}.", advice="Delete it to start again.")
