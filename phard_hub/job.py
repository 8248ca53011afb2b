"""The job: what every long step needs, in one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from phard_hub.errors import PhardError
from phard_hub.hardware import default_accelerator

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called as ``progress(what is being done, steps done, steps in all)``."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every long step needs: processes, a seed, a place for its state, and a progress display.

    Attributes:
        accelerator: of accelerate; decides on devices, processes and precision. By default what the machine has.
        seed: of everything that is drawn.
        folder: for the states of the trainings; only this user may enter it, and those that are there are continued.
            Without it, a training that is stopped starts again.
        progress: called after each step.
        parts: the names of this part of the job and of those around it.
    """

    accelerator: Accelerator = field(default_factory=default_accelerator)
    seed: int = 0
    folder: Path | None = None
    progress: Progress = silent
    parts: tuple[str, ...] = ()

    def part(self, name: str) -> Job:
        """A part of this job, with a name and a state of its own."""
        return replace(self, parts=(*self.parts, name))

    @property
    def name(self) -> str:
        """What the progress calls this part."""
        return self.parts[-1] if self.parts else "training"

    @property
    def state(self) -> Path | None:
        """Where the state of this part is kept; None if it is not."""
        return self.folder and self.folder / ("~".join(self.parts).replace(" ", "-") or self.name)

    def show(self, done: int, total: int) -> None:
        """Tell how far this part is."""
        self.progress(self.name, done, total)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any of the processes; all have to ask, and all get the same answer."""
        if self.accelerator.num_processes == 1:
            return flag
        count = torch.tensor([int(flag)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(count, "sum").item())

    def first(self, act: Callable[[], T]) -> T:
        """Let the first process act, and give what comes of it to all; an error is raised in all of them.

        Raises:
            PhardError: that the first process met.
        """
        came: list[T | PhardError | None] = [None]
        if self.accelerator.is_main_process:
            try:
                came = [act()]
            except PhardError as error:
                came = [error]
        broadcast_object_list(came)
        if isinstance(came[0], PhardError):
            raise came[0]
        return came[0]  # type: ignore[return-value]
