"""What an attack is: a trigger, and what its recipe adds to poisoned batches."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Attack(Protocol):
    """A backdoor trigger of the literature; its fields are its parameters."""

    @property
    def name(self) -> str:
        """The name in tables and on the command line."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]; shape and range are kept."""

    def decoys(self, pixels: Tensor, random: torch.Generator) -> Tensor | None:
        """Near misses that keep their true label in training, or None where the recipe has none."""
