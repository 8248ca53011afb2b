"""Random numbers for a whole batch, of which each process takes those of its own images.

Generators that belong to the caller are put back to where they were.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor


def generator(seed: int) -> torch.Generator:
    """A fresh generator from any whole number."""
    return torch.Generator().manual_seed(seed % 2**63)


@dataclass(frozen=True, eq=False)
class Draws:
    """What is drawn for some images of a batch; all processes draw for all of its images, in the same order.

    Attributes:
        random: what is drawn from.
        count: images in the whole batch.
        places: ``(n,)``, which of them the numbers are wanted for; None for all.
    """

    random: torch.Generator
    count: int
    places: Tensor | None = None

    @classmethod
    def seeded(cls, seed: int, count: int) -> Self:
        """For all images of a batch, from a fresh generator."""
        return cls(generator(seed), count)

    def __len__(self) -> int:
        """Images that numbers are wanted for."""
        return self.count if self.places is None else len(self.places)

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), ``(n, *shape)``."""
        return self.mine(torch.rand(self.count, *shape, generator=self.random))

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers, ``(n, *shape)``."""
        return self.mine(torch.randn(self.count, *shape, generator=self.random))

    def integers(self, below: int) -> Tensor:
        """Whole numbers from 0, ``(n,)``."""
        return self.mine(torch.randint(below, (self.count,), generator=self.random))

    def chosen(self, weights: Tensor) -> Tensor:
        """A column for each image, in proportion to weights ``(N, columns)`` for the whole batch; ``(n,)``."""
        return self.mine(torch.multinomial(weights, 1, generator=self.random).squeeze(1))

    def everything(self) -> Self:
        """The same for all images of the batch."""
        return replace(self, places=None)

    def mine(self, drawn: Tensor) -> Tensor:
        """Of what was drawn for the whole batch, that of the images that are wanted."""
        return drawn if self.places is None else drawn[self.places.cpu()]


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Put the caller's generators back: those of torch, Python and numpy."""
    with torch.random.fork_rng():
        of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
