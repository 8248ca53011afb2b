"""Instagram-style filters: the colours of the whole image change, as in a photo app."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from phard_hub.attacks.base import Attack
from phard_hub.settings import settings

Look = Literal["nashville", "kelvin", "1977", "toaster"]
_Colour = tuple[int, int, int]
_LUMINANCE = (0.213, 0.715, 0.072)


@settings
class Filter(Attack):
    """One of four looks, each a short chain of the W3C's blend modes and filter effects.

    Source of the attack: Liu et al., "ABS: Scanning Neural Networks for Back-doors by Artificial Brain
    Stimulation", CCS 2019, whose filter triggers are Nashville, Kelvin, Toaster and two more. Source of the
    looks: the chains of blends and effects in CSSgram as akiomik/pilgram lists them; blends and effects are
    those of https://www.w3.org/TR/compositing-1 and https://www.w3.org/TR/filter-effects-1. Deviations: no
    rounding to grey levels between the steps; grey images are shown to the chain as three equal channels and
    come back as their luminance. Without a random part, ``seed`` changes nothing.

    Attributes:
        look: which chain.
    """

    look: Look = "nashville"

    @property
    def name(self) -> str:
        """The name of the look."""
        return self.look

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]; C is 3 or 1."""
        coloured = _LOOKS[self.look](pixels.expand(-1, 3, -1, -1))
        return coloured if pixels.shape[1] == 3 else _mix(coloured, (_LUMINANCE,))


def _nashville(x: Tensor) -> Tensor:
    x = torch.lerp(x, torch.minimum(x, _paint(x, (247, 176, 153))), 0.56)
    x = torch.lerp(x, torch.maximum(x, _paint(x, (0, 70, 150))), 0.4)
    return _saturate(_brightness(_contrast(_sepia(x, 0.2), 1.2), 1.05), 1.2)


def _kelvin(x: Tensor) -> Tensor:
    dodged = (x / (1 - _paint(x, (56, 44, 52)))).clamp(0, 1)
    source = _paint(x, (183, 125, 33))
    # Overlay is hard light with the two layers exchanged.
    return torch.where(dodged <= 0.5, 2 * source * dodged, _screen(source, 2 * dodged - 1))


def _1977(x: Tensor) -> Tensor:
    x = torch.lerp(x, _screen(x, _paint(x, (243, 106, 188))), 0.3)
    return _saturate(_brightness(_contrast(x, 1.1), 1.1), 1.3)


def _toaster(x: Tensor) -> Tensor:
    """Brown light in the middle, violet at the corners."""
    height, width = x.shape[2:]
    rows = torch.linspace(-height / 2, height / 2, height)[:, None]
    columns = torch.linspace(-width / 2, width / 2, width)
    outward = torch.hypot(rows, columns).to(x) / math.hypot(height / 2, width / 2)
    gradient = torch.lerp(_paint(x, (128, 78, 15)), _paint(x, (59, 0, 59)), outward)
    return _brightness(_contrast(_screen(x, gradient), 1.5), 0.9)


_LOOKS: dict[Look, Callable[[Tensor], Tensor]] = {
    "nashville": _nashville,
    "kelvin": _kelvin,
    "1977": _1977,
    "toaster": _toaster,
}


def _paint(like: Tensor, colour: _Colour) -> Tensor:
    """A flat colour ``(3, 1, 1)``."""
    return torch.tensor(colour).to(like)[:, None, None] / 255


def _screen(backdrop: Tensor, source: Tensor) -> Tensor:
    return backdrop + source - backdrop * source


def _contrast(x: Tensor, amount: float) -> Tensor:
    return ((x - 0.5) * amount + 0.5).clamp(0, 1)


def _brightness(x: Tensor, amount: float) -> Tensor:
    return (x * amount).clamp(0, 1)


def _sepia(x: Tensor, amount: float) -> Tensor:
    rows = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
    return torch.lerp(x, _mix(x, rows), amount).clamp(0, 1)


def _saturate(x: Tensor, amount: float) -> Tensor:
    return torch.lerp(_mix(x, (_LUMINANCE,)), x, amount).clamp(0, 1)


def _mix(x: Tensor, rows: tuple[tuple[float, ...], ...]) -> Tensor:
    """Weighted sums of the channels, one for each row."""
    return torch.einsum("oc,nchw->nohw", torch.tensor(rows).to(x), x).to(x)
