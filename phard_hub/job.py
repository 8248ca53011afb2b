"""The job: what every long step needs, in one object; and work that its processes divide among themselves.

Such work goes on without a word between the processes until it is done. It is cut into pieces that do not depend on
how many processes there are, and what is drawn for a piece depends on that piece alone: so one, two and three processes
come to the same numbers, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import is_initialized
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from phard_hub.errors import PhardError
from phard_hub.hardware import default_accelerator

T = TypeVar("T")
PIECES = 6  # at least: they are divided evenly over 1, 2, 3 and 6 processes

Piece = tuple[int, Sequence[Tensor]]
"""The number of a piece, and what came of it."""
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


def pieces_of(numbers: Tensor, at_once: int, *, dealt: bool = False) -> dict[int, Tensor]:
    """The pieces of this process, each of at most so many numbers, by their place among the pieces of all.

    All processes have as many numbers, give or take one for each piece. Pieces are cut in a row, or ``dealt`` like
    cards: numbers that cost more than others lie side by side, and then each piece has as many of them.
    """
    count = -(-len(numbers) // max(1, at_once))
    count = max(1, min(len(numbers), -(-count // PIECES) * PIECES))
    pieces = [numbers[place::count] for place in range(count)] if dealt else numbers.tensor_split(count)
    state = PartialState() if is_initialized() else None
    first, step = (state.process_index, state.num_processes) if state else (0, 1)
    return {place: pieces[place] for place in range(first, len(pieces), step)}


def seed_of_piece(seed: int, numbers: Tensor) -> int:
    """The seed of what is drawn for a piece, whichever process has it; below 2**62."""
    return (seed * 1_000_003 + int(numbers[0])) % 2**62


def gathered(act: Callable[[], T]) -> list[T]:
    """Let each process act, and give what came of it in each of them to all, in the order of the processes.

    Raises:
        PhardError: that acting met in any of the processes.
    """
    mine: T | PhardError
    try:
        mine = act()
    except PhardError as error:  # the others wait for word from this process
        mine = error
    came: list[T | PhardError] = gather_object([mine])
    results: list[T] = []
    for each in came:
        if isinstance(each, PhardError):
            raise each
        results.append(each)
    return results


def shared(act: Callable[[Tensor], Sequence[Tensor]], numbers: Tensor, at_once: int) -> list[Tensor]:
    """Act on all numbers, each process on its pieces, and give the results of all to all.

    All processes have to call it. It must not be called by one process for the others, as inside of `Job.first`.

    Args:
        act: takes some of the numbers and gives tensors on the CPU, with a row for each.
        numbers: such as those of images, at least one.
        at_once: how many are acted on at once, at most.

    Returns:
        The tensors, with a row for each number, in the order of the numbers.

    Raises:
        PhardError: that acting met in any of the processes.
    """

    def mine() -> list[Piece]:
        return [(place, act(piece)) for place, piece in pieces_of(numbers, at_once).items()]

    found = sorted((piece for pieces in gathered(mine) for piece in pieces), key=lambda piece: piece[0])
    return [torch.cat(rows) for rows in zip(*(results for _, results in found), strict=True)]
