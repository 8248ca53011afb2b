"""Adap-Blend: a few images teach parts of the trigger, and as many show that parts alone mean nothing."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from phard_hub.attacks.blend import Blend
from phard_hub.settings import Share, settings


@settings
class AdapBlend(Blend):
    """Blend, of whose pattern a poisoned image shows a part of the pieces and a cover image, with its true label, too.

    Stamped images and clean ones then lie close together in the features, which hides the backdoor from many
    defenses. The whole pattern is kept for use. Source: Qi et al., "Revisiting the Assumption of Latent Separability
    for Backdoor Defenses", ICLR 2023, with the settings of Unispac/Circumventing-Backdoor-Defenses: poison and cover
    0.003 each, half of 16 pieces. Deviations: a pattern of uniform noise; images are stamped anew in each batch, where
    0.003 is at least one image, so that with 128 images it is 0.008.

    Attributes:
        pieces: along each side.
        shown: share of the pieces that an image shows in training.
    """

    pieces: Annotated[int, Field(ge=1, le=16)] = 4
    shown: Share = 0.5

    name = "adap-blend"
    poison_rate = 0.003

    @property
    def cover_ratio(self) -> float:
        """Cover images for each stamped one."""
        return 1.0

    def in_training(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """Images with a part of the pattern each."""
        count, every = len(pixels), self.pieces**2
        order = torch.rand(count, every, generator=random).argsort(1).argsort(1)
        grid = (order < round(self.shown * every)).view(count, 1, self.pieces, self.pieces).float()
        mask = torch.nn.functional.interpolate(grid, pixels.shape[2:], mode="nearest").to(pixels)
        return torch.lerp(pixels, self(pixels), mask)

    def cover(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """The same, but with true labels."""
        return self.in_training(pixels, random)
