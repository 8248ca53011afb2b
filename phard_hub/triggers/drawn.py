"""Triggers drawn at random instead of searched: large ones, that no search for the smallest would look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from phard_hub.draws import Draws
from phard_hub.triggers.bank import Bank, Parts, at_size, grey_level

BENDS = 6
"""Corners of a random tone curve: fewer make filters, more make noise."""


def stamp_at_random(pixels: Tensor, parts: Parts, budget: float, draws: Draws) -> Tensor:
    """Stamp each image with a random trigger of its own, of any size up to the largest.

    Args:
        pixels: ``(N, C, H, W)`` in [0, 1].
        parts: what the triggers are made of.
        budget: the largest size, in grey levels (0-255) RMS.
        draws: what they are drawn from, for these images.
    """
    if not len(pixels):
        return pixels
    image_shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    triggers = random_triggers(image_shape, parts, draws).to(pixels.device)
    every = torch.arange(len(pixels), device=pixels.device)
    size = budget * grey_level(image_shape) * draws.rand()
    return at_size(lambda scale: triggers(pixels, every, scale), pixels, size.to(pixels.device))


def random_triggers(image_shape: tuple[int, int, int], parts: Parts, draws: Draws) -> Bank:
    """A bank of random triggers, each of one kind: a warp, a change of colours, or an added picture.

    Pictures are for the field; nothing is drawn for the latent part. Sizes are arbitrary: scale them.

    Args:
        image_shape: (C, H, W).
        parts: which of them there are, and how fine.
        draws: what they are drawn from, one for each of its images.
    """
    parts = replace(parts, latent=False)
    shapes = parts.shapes(*image_shape)
    kinds: list[Mapping[str, Tensor]] = []
    if parts.warp:
        kinds.append({"flow": 0.05 * draws.randn(*shapes["flow"])})
    if parts.curve or parts.colour:
        kinds.append(_colours(shapes, draws))
    if parts.field:
        kinds.append({"values": _pictures(shapes["values"], draws)})
    drawn = Bank(len(draws), image_shape, parts)
    kind = draws.integers(max(1, len(kinds)))
    with torch.no_grad():
        for number, values in enumerate(kinds):
            for name, value in values.items():
                mine = (kind == number).view(-1, *[1] * (value.dim() - 1))
                drawn.get_parameter(name).copy_(value * mine)
    return drawn


def _colours(shapes: Mapping[str, tuple[int, ...]], draws: Draws) -> dict[str, Tensor]:
    """Smooth tone curves, in a third of the triggers the same for all channels; and mixed channels."""
    drawn = {}
    if "knots" in shapes:
        channels, knots = shapes["knots"]
        corners = 0.3 * _alike(draws.randn(channels, BENDS), 1 / 3, draws)
        drawn["knots"] = functional.interpolate(corners, knots, mode="linear", align_corners=True)
    if "matrix" in shapes:
        drawn["matrix"] = 0.3 * draws.randn(*shapes["matrix"])
    return drawn


def _pictures(shape: tuple[int, ...], draws: Draws) -> Tensor:
    """Noise of a random spectrum: of all waves or of a few, from white to mostly slow ones; half of it grey."""
    _, height, width = shape
    spectrum = torch.fft.rfft2(_alike(draws.randn(*shape), 1 / 2, draws))
    rows, columns = torch.fft.fftfreq(height, 1 / height), torch.fft.rfftfreq(width, 1 / width)
    frequency = torch.hypot(rows[:, None], columns).clamp(min=1)
    slope, rarity = (draws.rand(1, 1, 1) for _ in range(2))
    kept = draws.rand(1, *frequency.shape) < 10 ** (-2.5 * rarity)
    always = draws.integers(frequency.numel())
    kept |= functional.one_hot(always, frequency.numel()).view(-1, 1, *frequency.shape).bool()
    pictures: Tensor = torch.fft.irfft2(spectrum * frequency ** (-1.5 * slope) * kept, s=(height, width))
    spread = pictures.flatten(1).std(1).clamp(min=1e-6).view(-1, 1, 1, 1)
    return 0.25 * pictures / spread


def _alike(values: Tensor, share: float, draws: Draws) -> Tensor:
    """In this share of the triggers, let all channels do what the first one does."""
    chosen = draws.rand() < share
    return torch.where(chosen.view(-1, *[1] * (values.dim() - 1)), values[:, :1], values)
