"""Work that the processes of a job divide among themselves, without a word between them until it is done.

It is cut into pieces that do not depend on how many processes there are, and what is drawn for a piece depends on that
piece alone: so one, two and three processes come to the same numbers, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import PartialState
from accelerate.state import is_initialized
from accelerate.utils import gather_object
from torch import Tensor

from phard_hub.errors import PhardError

_PIECES = 6  # at least: they are divided evenly over 1, 2, 3 and 6 processes

Piece = tuple[int, Sequence[Tensor]]
"""The number of a piece, and what came of it."""


def pieces_of(numbers: Tensor, at_once: int) -> dict[int, Tensor]:
    """The pieces of this process, each of at most so many numbers, by their place among the pieces of all."""
    pieces = numbers.split(max(1, min(at_once, -(-len(numbers) // _PIECES))))
    state = PartialState() if is_initialized() else None
    first, step = (state.process_index, state.num_processes) if state else (0, 1)
    return {place: pieces[place] for place in range(first, len(pieces), step)}


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
    mine: list[Piece] = []
    problem: PhardError | None = None
    try:
        mine.extend((place, act(piece)) for place, piece in pieces_of(numbers, at_once).items())
    except PhardError as error:  # the others wait for word from this process
        problem = error
    came: list[tuple[list[Piece], PhardError | None]] = gather_object([(mine, problem)])
    for _, each in came:
        if each is not None:
            raise each
    found = sorted((piece for pieces, _ in came for piece in pieces), key=lambda piece: piece[0])
    return [torch.cat(rows) for rows in zip(*(results for _, results in found), strict=True)]
