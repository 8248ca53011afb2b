"""WaNet: every image is bent along one smooth, fixed field."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from phard_hub.attacks.base import Attack
from phard_hub.settings import settings


@settings
class WaNet(Attack):
    """Sample the image at ``clamp(identity + strength * flow / height, -1, 1)``.

    The flow is uniform noise in [-1, 1] on a ``grid`` x ``grid`` lattice, divided by its mean absolute value
    and enlarged bicubically. In noise mode, twice as many images as are stamped are bent along other fields
    (this one plus noise) and keep their label, so that the model learns this one field. Source: Nguyen &
    Tran, "WaNet - Imperceptible Warping-based Backdoor Attack", ICLR 2021 (arXiv 2102.10369), equations 3
    to 6. Deviation: images are bent after augmentation, the authors' code augments the bent ones.

    Attributes:
        grid: points of the lattice along a side.
        strength: mean displacement in units of the lattice's [-1, 1] coordinates times the height.
        noise_mode: whether training images bent along other fields keep their label.
    """

    grid: Annotated[int, Field(ge=1, le=256)] = 4
    strength: NonNegativeFloat = 0.5
    noise_mode: bool = True

    name = "wanet"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]."""
        return _sample(pixels, self._places(pixels).clamp(-1, 1))

    @property
    def cover_ratio(self) -> float:
        """Cover images for each stamped one."""
        return 2.0 if self.noise_mode else 0.0

    def cover(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """Images bent along the field plus a random one that differs from image to image."""
        noise = torch.rand(len(pixels), *pixels.shape[2:], 2, generator=random) * 2 - 1
        return _sample(pixels, (self._places(pixels) + noise.to(pixels) / pixels.shape[2]).clamp(-1, 1))

    def _places(self, pixels: Tensor) -> Tensor:
        """Where each pixel is taken from, ``(N, H, W, 2)`` in [-1, 1]."""
        height, width = pixels.shape[2:]
        lattice = torch.rand(1, 2, self.grid, self.grid, generator=torch.Generator().manual_seed(self.seed)) * 2 - 1
        lattice = lattice / lattice.abs().mean()
        flow = functional.interpolate(lattice, size=(height, width), mode="bicubic", align_corners=True)
        ys, xs = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        identity = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1)
        places = identity + self.strength * flow.permute(0, 2, 3, 1) / height
        return places.to(pixels).expand(len(pixels), -1, -1, -1)


def _sample(pixels: Tensor, places: Tensor) -> Tensor:
    return functional.grid_sample(pixels, places, mode="bilinear", padding_mode="zeros", align_corners=True)
