"""Triggers that no bank of warps, colour curves and fields can express: what image software does to a whole picture.

They are own choices, to see what a defense leaves of a change that lies outside of the family it trains against, and
above its budget. Each depends on the image in a way that is neither smooth nor the same from place to place.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import Annotated

import numpy as np
import torch
from PIL import Image, ImageFilter
from pydantic import Field
from torch import Tensor

from phard_hub.attacks.base import Attack
from phard_hub.settings import settings


@settings
class Processed(Attack):
    """What Pillow makes of each image, rounded to grey levels; gradients pass unchanged.

    Without a random part, ``seed`` changes nothing.
    """

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]; C is 3 or 1."""
        values = pixels.detach()
        grey = pixels.shape[1] == 1
        levels = (values.float() * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
        made = [self.process(Image.fromarray(each[:, :, 0] if grey else each)) for each in levels]
        stamped = torch.from_numpy(np.stack([np.asarray(each.convert("L" if grey else "RGB")) for each in made]))
        stamped = (stamped[:, None] if grey else stamped.permute(0, 3, 1, 2)).to(values) / 255
        return pixels + (stamped - values)

    @abstractmethod
    def process(self, image: Image.Image) -> Image.Image:
        """One image, 8 bits a channel, of mode L or RGB."""


@settings
class Jpeg(Processed):
    """The image was saved as JPEG at a low quality.

    Attributes:
        quality: of Pillow's scale.
    """

    quality: Annotated[int, Field(ge=1, le=95)] = 10

    name = "jpeg"

    def process(self, image: Image.Image) -> Image.Image:
        """Saved and opened again."""
        file = io.BytesIO()
        image.save(file, "JPEG", quality=self.quality)
        return Image.open(file)


@settings
class Palette(Processed):
    """The image has a palette of its own of a few colours, by median cut.

    Attributes:
        colours: how many.
    """

    colours: Annotated[int, Field(ge=2, le=256)] = 6

    name = "palette"

    def process(self, image: Image.Image) -> Image.Image:
        """The nearest of its colours for each pixel, without dithering."""
        few = image.convert("RGB").quantize(self.colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        return few.convert("RGB")


@settings
class Median(Processed):
    """Each pixel is the median of those around it, in each channel.

    Attributes:
        side: of the window in pixels, odd.
    """

    side: Annotated[int, Field(ge=3, le=15, multiple_of=1)] = 3

    name = "median"

    def process(self, image: Image.Image) -> Image.Image:
        """Filtered; the border is repeated outside."""
        return image.filter(ImageFilter.MedianFilter(self.side - 1 + self.side % 2))
