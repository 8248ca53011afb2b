"""BPP: fewer grey levels, with the error spread to the neighbours."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from phard_hub.attacks.base import Attack, other_images
from phard_hub.settings import settings

_SPREAD = {(1, -1): 3 / 16, (1, 0): 5 / 16, (1, 1): 1 / 16, (0, 1): 7 / 16}
"""What share of a pixel's error goes where, as (rows, columns) from it: Floyd and Steinberg.

The right neighbour comes last: then each pixel receives errors in the same order as in a loop over pixels,
and the sums are equal to the last bit.
"""


@settings
class Bpp(Attack):
    """Round each value to one of ``levels`` even levels: ``round(x (levels - 1)) / (levels - 1)``.

    With dithering, pixels are rounded row by row and each error is added to the neighbours to come (Floyd and
    Steinberg: 7/16 to the right, 3/16, 5/16 and 1/16 below). In training, as many images as are stamped get
    the rounding error of another image instead and keep their label. Source: Wang, Zhai & Ma, "BppAttack:
    Stealthy and Efficient Trojan Attacks against Deep Neural Networks via Image Quantization and Contrastive
    Adversarial Learning", CVPR 2022 (arXiv 2205.13383), and their code's defaults (8 levels, dithering).
    Deviations: the adversarial part of their training is these cover images only; the share is 0.1 for 0.2;
    gradients pass the rounding unchanged. Without a random part, ``seed`` changes nothing.

    Attributes:
        levels: values that each channel keeps.
        dither: whether the error is spread.
    """

    levels: Annotated[int, Field(ge=2, le=256)] = 8
    dither: bool = True

    name = "bpp"

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]."""
        values = pixels.detach()
        rounded = self._dithered(values) if self.dither else self._round(values)
        return pixels + (rounded - values)

    @property
    def cover_ratio(self) -> float:
        """Cover images for each stamped one."""
        return 1.0

    def cover(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """Images with the rounding error of others."""
        others = other_images(pixels, random)
        return (pixels + self(others) - others).clamp(0, 1)

    def _round(self, values: Tensor) -> Tensor:
        return (values * (self.levels - 1)).round() / (self.levels - 1)

    def _dithered(self, values: Tensor) -> Tensor:
        """Spread errors along slanted lines: the pixels with the same ``column + 2 row`` do not touch each other.

        That is the order of one pixel after the other, but in 2 H + W steps instead of H W. The frame of one
        row below and one column at either side takes the errors that leave the image.
        """
        height, width = values.shape[2:]
        work = torch.nn.functional.pad(values, (1, 1, 0, 1))
        for line in range(width + 2 * (height - 1)):
            rows = torch.arange(max(0, (line - width + 2) // 2), min(height - 1, line // 2) + 1, device=values.device)
            columns = line - 2 * rows + 1
            old = work[:, :, rows, columns]
            new = self._round(old.clamp(0, 1))
            work[:, :, rows, columns] = new
            for (down, right), share in _SPREAD.items():
                work[:, :, rows + down, columns + right] += share * (old - new)
        return work[:, :, :height, 1 : width + 1]
