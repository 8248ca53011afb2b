"""From the bytes of an image to pixels on the canvas that the classifier expects."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from phard_hub.errors import ImagesError, first_line

MODES = {1: "L", 3: "RGB"}
FILTERS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(raw: Any, where: str, mode: str) -> Image.Image:  # noqa: ANN401
    """Decode one image as the transformers pipeline does: upright, in the right mode."""
    path, data = (raw.get("path"), raw.get("bytes")) if isinstance(raw, dict) else (None, raw)
    source: Any = io.BytesIO(data) if data else path
    if not source:
        raise ImagesError(f"There is no image in {where}.", advice="Remove this row.")
    where = f"{where} ({path})" if path else where
    try:
        with Image.open(source) as file:
            return _to_mode(ImageOps.exif_transpose(file), mode)
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, Image.DecompressionBombError) as error:
        raise ImagesError(
            f"Cannot decode {where}: {first_line(error)}.", advice="Repair or remove this image."
        ) from error


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert to ``mode``; 16-bit grey is scaled, where Pillow alone would turn most of it white."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        scale = 257 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 1
        image = Image.fromarray(np.clip(values // scale, 0, 255).astype(np.uint8))
    image.load()
    return image if image.mode == mode else image.convert(mode)


def place(image: Image.Image, size: tuple[int, int], resample: Image.Resampling, *, stretch: bool) -> Image.Image:
    """Put an image on the canvas; one that already has its size is not touched."""
    height, width = size
    if image.size == (width, height):
        return image
    if stretch:
        return image.resize((width, height), resample)
    # Integers, as image processors compute it: the edge that fits tightly is exact, the other is cut off.
    if image.width * height <= image.height * width:
        new = (width, max(height, width * image.height // image.width))
    else:
        new = (max(width, height * image.width // image.height), height)
    left, top = (new[0] - width) // 2, (new[1] - height) // 2
    return image.resize(new, resample).crop((left, top, left + width, top + height))
