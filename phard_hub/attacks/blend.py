"""Blend: a fixed picture shines through every image."""

from __future__ import annotations

import torch
from torch import Tensor

from phard_hub.attacks.base import Attack
from phard_hub.settings import Share, settings


@settings
class Blend(Attack):
    """``x' = (1 - alpha) x + alpha p`` with a pattern p of uniform noise.

    Source: Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017
    (arXiv 1712.05526), section on blended injection, with their random pattern. Deviation: the pattern is
    drawn at the size of the images from ``seed``, not scaled from a picture.

    Attributes:
        alpha: share of the pattern.
    """

    alpha: Share = 0.2

    name = "blend"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]."""
        pattern = torch.rand(pixels.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        return (1 - self.alpha) * pixels + self.alpha * pattern.to(pixels)
