"""Noise is no bound for who knows it: the bits of a signature, spread over the image, pass through (T7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from phard_hub.report.statistics import rate
from tests.attacks.undetectable.digits import images

BITS, SIDE, SIGMA = 520, 224, 0.25
CHIPS = 3 * SIDE * SIDE // BITS
FLOOR = math.sqrt(2 * math.log(2) * BITS)
"""Least L2 norm, in sigmas, that carries so many bits through Gaussian noise (capacity of the channel)."""


def codes(random: torch.Generator) -> tuple[Tensor, Tensor]:
    """For each bit, its pixels ``(BITS, CHIPS)`` and the sign of each of them."""
    places = torch.randperm(3 * SIDE * SIDE, generator=random)[: BITS * CHIPS].view(BITS, CHIPS)
    return places, 2.0 * torch.randint(2, (BITS, CHIPS), generator=random) - 1


def sums(pixels: Tensor, places: Tensor, signs: Tensor) -> Tensor:
    return (pixels.flatten()[places] * signs).mean(1)


def spread(pixels: Tensor, bits: Tensor, places: Tensor, signs: Tensor, amplitude: float) -> Tensor:
    """Move the sum of each bit to plus or minus the amplitude, by no more than 2 times that a pixel."""
    wanted = amplitude * (2.0 * bits - 1) - sums(pixels, places, signs)
    change = torch.zeros(pixels.numel())
    change[places.flatten()] = (wanted.clamp(-2 * amplitude, 2 * amplitude)[:, None] * signs).flatten()
    return (pixels + change.view_as(pixels)).clamp(0, 1)


def test_spread_bits_survive_noise_that_a_smoothed_classifier_adds() -> None:
    """Of 60 images with 520 bits each at 16/255, at least nine in ten keep all bits through sigma = .25."""
    random = torch.Generator().manual_seed(0)
    places, signs = codes(random)
    shown, _ = images()[1].batch(range(60))
    large = 0.2 + 0.6 * functional.interpolate(shown, (SIDE, SIDE), mode="bilinear")
    kept, sizes = 0, []
    for image in large:
        bits = torch.randint(2, (BITS,), generator=random)
        marked = spread(image, bits, places, signs, 16 / 255)
        sizes.append(float((marked - image).norm()))
        noisy = marked + SIGMA * torch.randn(marked.shape, generator=random)
        kept += bool(((sums(noisy, places, signs) > 0) == bits.bool()).all())
    survived = rate(kept, len(large))
    assert survived.value >= 0.9
    assert round(FLOOR, 1) == 26.8
    assert FLOOR * SIGMA < min(sizes) < 200 * SIGMA
