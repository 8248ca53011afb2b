"""Images, tables and folders as strangers make them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from phard_hub.images import LabelledImages, load_images
from tests.jobs import LABELS

ROW = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


PICTURE = Image.linear_gradient("L").resize((24, 17)).convert("RGB")
PNG = encoded(PICTURE)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG that claims a size; its pixels are not there."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 24\n%%EndComments\n(x) run\nshowpage\n%%EOF\n"
NUMBERS = pa.array(range(4))


def check_line(text: str) -> None:
    """One line that a terminal shows as it is, and not a long one."""
    assert text.isprintable()
    assert len(text) < 1000


def load(dataset: object, **arguments: Any) -> LabelledImages:
    return load_images(str(dataset), **{"labels": LABELS, "image_size": (8, 8), **arguments})


Change = Callable[[Path], object]


def table(images: Any, labels: Any) -> pa.Table:
    return pa.table({"image": images, "label": labels})


def rows(count: int = 4, data: bytes | None = PNG, path: str | None = None) -> pa.Array:
    return pa.array([{"bytes": data, "path": path}] * count, type=ROW)
