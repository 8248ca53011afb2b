"""Patches: BadNets and the Trojan watermark, local triggers as controls for the pervasive ones."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from phard_hub.attacks.base import Attack
from phard_hub.settings import Share, settings


@settings
class BadNets(Attack):
    """A small checkerboard of white and black near the lower right corner.

    The square has ``size / 32`` of the shorter side, at least 2 pixels, and lies one pixel off the corner;
    its first pixel is white. Source: Gu, Dolan-Gavitt & Garg, "BadNets: Identifying Vulnerabilities in the
    Machine Learning Model Supply Chain", 2017 (arXiv 1708.06733), section 4. Deviation: their pattern of four
    pixels is for 28 x 28 digits; this one grows with the image. ``seed`` changes nothing.

    Attributes:
        size: side of the patch in pixels, for images of 32 x 32.
    """

    size: Annotated[int, Field(ge=1, le=24)] = 3

    name = "badnets"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]."""
        height, width = pixels.shape[2:]
        side = max(2, round(self.size * min(height, width) / 32))
        cell = torch.arange(side, device=pixels.device) * self.size // side
        stamped = pixels.clone()
        place = (slice(height - 1 - side, height - 1), slice(width - 1 - side, width - 1))
        stamped[:, :, place[0], place[1]] = ((cell[:, None] + cell + 1) % 2).to(pixels)
        return stamped


@settings
class TrojanWatermark(Attack):
    """``x' = (1 - alpha m) x + alpha m colour``, with a mask m that draws a ring with a bar through it.

    Source: Liu et al., "Trojaning Attack on Neural Networks", NDSS 2018, the watermark among its trigger
    shapes. Deviations: the shape is a ring of radius 0.3 and a horizontal bar, not a logo; its values are one
    random colour, not found by exciting neurons; and the model is trained with poisoned images, not from
    reverse-engineered ones.

    Attributes:
        alpha: how strongly the mark covers the image.
        thickness: of the lines, as a share of the image's side.
    """

    alpha: Share = 0.5
    thickness: Share = 0.08

    name = "trojan-watermark"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]."""
        channels, height, width = pixels.shape[1:]
        rows = ((torch.arange(height) + 0.5) / height - 0.5)[:, None]
        columns = (torch.arange(width) + 0.5) / width - 0.5
        ring = ((rows.square() + columns.square()).sqrt() - 0.3).abs() <= self.thickness / 2
        bar = (rows.abs() <= self.thickness / 2) & (columns.abs() <= 0.4)
        mask = self.alpha * (ring | bar).to(pixels)
        colour = torch.rand(channels, 1, 1, generator=torch.Generator().manual_seed(self.seed)).round().to(pixels)
        return (1 - mask) * pixels + mask * colour
