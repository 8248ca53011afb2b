"""SIG: vertical stripes of a sine wave, with true labels only."""

from __future__ import annotations

import math

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from phard_hub.attacks.base import Attack
from phard_hub.settings import Share, settings


@settings
class Sig(Attack):
    """``x'[i, j] = clip(x[i, j] + delta sin(2 pi j frequency / width), 0, 1)`` for column j, from 0.

    Only images of the target class are stamped in training: the model learns the stripes as a sign of a class
    that is there. Source: Barni, Kallas & Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption
    without Label Poisoning", ICIP 2019 (arXiv 1902.11237), section 3, with frequency 6 as there. Deviation:
    delta is the 40/255 of the comparisons that others published, where the paper trains with 20 to 40 on
    digits and signs; 80 % of the target class are stamped, which is 8 % of ten balanced classes. A model that is
    right about the target class already learns it slowly: plant from scratch, or with many steps. Without a
    random part, ``seed`` changes nothing.

    Attributes:
        delta: height of the wave, pixels in [0, 1].
        frequency: waves over the width of the image.
    """

    delta: Share = 40 / 255
    frequency: NonNegativeFloat = 6.0

    name = "sig"
    clean_label = True
    poison_rate = 0.8

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]."""
        width = pixels.shape[3]
        columns = torch.arange(width).to(pixels)
        return (pixels + self.delta * torch.sin(2 * math.pi * columns * self.frequency / width)).clamp(0, 1)
