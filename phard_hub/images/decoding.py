"""From the bytes of an image, which a stranger may have made, to pixels on the canvas that the classifier expects."""

from __future__ import annotations

import io
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from phard_hub.errors import ImagesError, first_line
from phard_hub.report.wording import printable

MODES = {1: "L", 3: "RGB"}
FILTERS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Pillow knows forty formats more. Some of them start programs (EPS) or are read by what is hardly ever tested.
_AVIF = ("AVIF",) if features.check("avif") else ()
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", *_AVIF)
LARGEST_FILE = 64 * 2**20
"""Bytes that the file of one image may have."""
LARGEST_IMAGE = 50_000_000
"""Pixels that one image may have."""
NO_BYTES = "Put the bytes of the image into the row, because names of files are not followed, or remove the row."
"""What to do about a row without an image."""
_PIXELS = f"{LARGEST_IMAGE:,} pixels"
_TIFF = (b"II", b"MM")
_LONGEST = 100
"""Of an image this many times longer than wide, the middle is used: enlarged as a whole, it would fill the memory."""


def decode(data: bytes, where: str, mode: str) -> Image.Image:
    """Decode one image as the transformers pipeline does: upright, in the right mode; of several frames the first.

    Args:
        data: of one of `FORMATS`.
        where: for errors; printable.
        mode: a value of `MODES`.

    Raises:
        ImagesError: it is empty, too large, broken or of another format.
    """
    if not data:
        raise ImagesError(f"There is no image in {where}.", advice=NO_BYTES)
    if len(data) > LARGEST_FILE:
        raise _too_large(where, f"{len(data) / 2**20:.0f} MiB", f"{LARGEST_FILE // 2**20} MiB")
    try:
        with _silence(data), Image.open(io.BytesIO(data), formats=FORMATS) as file:
            size = file.size
            if math.prod(size) <= LARGEST_IMAGE:
                return _to_mode(ImageOps.exif_transpose(file), mode)
    except Image.DecompressionBombError as error:  # which Pillow raises before anybody can ask for the size
        number = re.search(r"\d+", str(error))
        raise _too_large(where, f"{number[0] if number else 'too many'} pixels", _PIXELS) from error
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError)
        cause = f"it is none of {', '.join(FORMATS)}, or broken" if unknown else printable(first_line(error), 200)
        raise ImagesError(f"Cannot decode {where}: {cause}.", advice="Repair or remove this image.") from error
    raise _too_large(where, f"{size[0]} x {size[1]} pixels", _PIXELS)


def _too_large(where: str, size: str, limit: str) -> ImagesError:
    return ImagesError(
        f"The image in {where} has {size}; at most {limit} are read.", advice="Make it smaller or remove it."
    )


@contextmanager
def _silence(data: bytes) -> Iterator[None]:
    """Odd files are warned of on stderr and in Pillow's log; here they are decoded all the same, or are an error."""
    log = logging.getLogger("PIL")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), _no_stderr() if data.startswith(_TIFF) else nullcontext():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Send what is written to stderr nowhere, by libtiff too, which writes there without asking Python."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert to ``mode``; 16-bit grey is scaled, where Pillow alone would turn most of it white."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
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
    image = _middle(image)
    # Integers, as image processors compute it: the edge that fits tightly is exact, the other is cut off.
    if image.width * height <= image.height * width:
        new = (width, max(height, width * image.height // image.width))
    else:
        new = (max(width, height * image.width // image.height), height)
    left, top = (new[0] - width) // 2, (new[1] - height) // 2
    return image.resize(new, resample).crop((left, top, left + width, top + height))


def _middle(image: Image.Image) -> Image.Image:
    """The image, or the middle of one that is very long."""
    longest = _LONGEST * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(edge, longest) for edge in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
