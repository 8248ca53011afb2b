"""The pervasive trigger: an encoder-decoder with a transformation layer.

A trigger is any function from pixels to pixels. The learned one is

    G(x) = clip(pixel parts(latent part(warp(x))), 0, 1)

and every part is exactly the identity when its parameters are zero, so that "no change" has distance 0
and scaling all parameters by one strength leads from the identity to the trigger.

=========  =============================================  =================================
part       formula                                        explains
=========  =============================================  =================================
warp       sample x at a smooth displacement of <= H/16   WaNet
latent     x + D(T(E(x))) - D(E(x))                       image-dependent styles
curve      x + piecewise linear residual per channel      colour filters, quantisation
colour     x + M x over the channels                      colour filters, reflections
field      x + b                                          SIG, blend, reflections
=========  =============================================  =================================

``E`` and ``D`` are an autoencoder of the defender's own images; the residual decode keeps its error out
of the distance. ``T``, the transformation layer, edits the latent code: statistics per channel, then a
position-wise affine map. The layers of DECK (arXiv 2206.09272) are not public; these are our own choice,
judged by which attacks they can express (``tests/triggers/test_fit.py``).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

FLOW_SCALE = 5.0
"""A step of the optimiser in the flow changes an image about as much as the same step in the field.

Without it the field is always ahead, and a planted warp is explained by a larger field instead.
"""


def warp(pixels: Tensor, flow: Tensor) -> Tensor:
    """Move pixels along a smooth field.

    Args:
        pixels: ``(N, C, H, W)`` in [0, 1].
        flow: ``(N, 2, g, g)``, x and y; ``tanh`` of `FLOW_SCALE` times it, enlarged, is the displacement in
            units of 1/16 of the image side.
    """
    height, width = pixels.shape[-2:]
    enlarged = functional.interpolate(flow, size=(height, width), mode="bicubic", align_corners=True)
    smooth = torch.tanh(FLOW_SCALE * enlarged)
    ys = torch.linspace(-1, 1, height, device=pixels.device, dtype=pixels.dtype)
    xs = torch.linspace(-1, 1, width, device=pixels.device, dtype=pixels.dtype)
    identity = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1).expand(len(pixels), -1, -1, -1)
    moved = _sample(pixels, identity + smooth.permute(0, 2, 3, 1) / 8)
    # Sampling at the identity is off by float rounding; as a difference the warp is exact at zero flow.
    return pixels + (moved - _sample(pixels, identity))


def _sample(pixels: Tensor, grid: Tensor) -> Tensor:
    grid = grid.nan_to_num()  # torch reads and writes outside of its memory where a place is NaN
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=True)


def tone_curve(pixels: Tensor, knots: Tensor) -> Tensor:
    """Add a piecewise linear function of the pixel value, ``knots (N, C, n)`` evenly spaced over [0, 1]."""
    position = pixels.nan_to_num().clamp(0, 1).flatten(2) * (knots.shape[-1] - 1)
    left = position.detach().floor().clamp(max=knots.shape[-1] - 2).long()
    share = position - left
    residual = torch.gather(knots, 2, left) * (1 - share) + torch.gather(knots, 2, left + 1) * share
    return pixels + residual.view_as(pixels)


def colour(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Mix the channels: ``x + M x`` with ``matrix (N, C, C)``."""
    return pixels + torch.bmm(matrix, pixels.flatten(2)).view_as(pixels)


def field(pixels: Tensor, values: Tensor) -> Tensor:
    """Add an image, ``values (N, C, g, g)``, enlarged to the size of the pixels where needed."""
    if values.shape[-2:] != pixels.shape[-2:]:
        values = functional.interpolate(values, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    return pixels + values


class Autoencoder(nn.Module):
    """Encoder and decoder without normalisation layers, which would erase the statistics that T edits.

    Pixels ``(N, C, H, W)`` to a code ``(N, 64, H // 2, W // 2)`` and back. Source of the form: Xu et al.,
    arXiv 2004.12385, with a far smaller encoder.
    """

    width = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        slope = 0.2
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.LeakyReLU(slope),
            nn.Conv2d(32, self.width, 4, stride=2, padding=1),
            nn.LeakyReLU(slope),
            nn.Conv2d(self.width, self.width, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(self.width, self.width, 3, padding=1),
            nn.LeakyReLU(slope),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(self.width, 32, 3, padding=1),
            nn.LeakyReLU(slope),
            nn.Conv2d(32, channels, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode and decode; the size of odd images is kept."""
        return self.decode(self.encoder(pixels), pixels)

    def decode(self, code: Tensor, like: Tensor) -> Tensor:
        """Decode ``code`` to the height and width of ``like``."""
        out: Tensor = self.decoder(code)
        # The code of an odd image lacks its last row or column.
        missing = (0, like.shape[-1] - out.shape[-1], 0, like.shape[-2] - out.shape[-2])
        return functional.pad(out, missing, mode="replicate") if any(missing) else out


def transform_code(code: Tensor, shift: Tensor, scale: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """The transformation layer T: statistics first, then a position-wise affine map.

    Args:
        code: ``(N, c, h, w)``.
        shift: ``(N, c)``, moves each channel's mean by this many of its standard deviations.
        scale: ``(N, c)``, multiplies each channel's spread by ``exp(scale)``.
        gain: ``(N, c, g, g)``, enlarged; multiplies by ``1 + gain``.
        bias: ``(N, c, g, g)``, enlarged; added.
    """
    mean = code.mean((2, 3), keepdim=True)
    spread = code.std((2, 3), keepdim=True)
    styled = (code - mean) * scale[..., None, None].exp() + mean + shift[..., None, None] * spread
    # At zero the line above must return the code itself, bit for bit.
    code = code + (styled - ((code - mean) + mean))
    size = code.shape[-2:]
    return code * (1 + _enlarge(gain, size)) + _enlarge(bias, size)


def _enlarge(grid: Tensor, size: Iterable[int]) -> Tensor:
    return functional.interpolate(grid, size=tuple(size), mode="bilinear", align_corners=False)
