"""Bytes that a stranger made are an image, or an error of one line."""

from __future__ import annotations

import struct
import time
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from phard_hub.errors import ImagesError
from phard_hub.images.decoding import FILTERS, LARGEST_IMAGE, decode, place
from tests.border.strangers import (
    EPS,
    PICTURE,
    PNG,
    check_line,
    chunk,
    encoded,
    png,
)

TEXT_BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200 << 20)))
PROFILE_BOMB = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(200 << 20)))
TIFF = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHII", 256, 4, 2**31, 0xFFFFFFF0) + bytes(4)
ENDLESS = struct.pack("<2sHIH", b"II", 42, 8, 0) + struct.pack("<I", 8)  # whose next directory is itself

BYTES: dict[str, tuple[bytes, str]] = {
    "EPS": (EPS, "none of PNG, JPEG"),
    "PDF": (b"%PDF-1.4\n1 0 obj<</OpenAction<</S/Launch/F(calc)>>>>endobj\n", "none of PNG, JPEG"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "none of PNG"),
    "windows metafile": (b"\xd7\xcd\xc6\x9a" + bytes(40), "none of PNG"),
    "icon": (encoded(PICTURE.resize((16, 16)), "ICO"), "none of PNG"),
    "pickle": (b"cos\nsystem\n(S'id'\ntR.", "none of PNG"),
    "nothing": (b"", "There is no image in x"),
    "177 megapixels": (png(13_300, 13_300), r"has 13300 x 13300 pixels; at most 50,000,000 pixels"),
    "four gigapixels": (png(65_535, 65_535), r"has 4294836225 pixels; at most 50,000,000 pixels"),
    "GIF of a large screen": (b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20), "Cannot decode|at most"),
    "JPEG of a large size": (encoded(PICTURE, "JPEG").replace(b"\0\x11\0\x18", b"\xff\xdc\xff\xdc", 1), "at most"),
    "65 megabytes": (PNG + bytes(65 << 20), "has 65 MiB; at most 64 MiB"),
    "text that unpacks to much": (png(8, 8, TEXT_BOMB), "Cannot decode x"),
    "profile that unpacks to much": (png(8, 8, PROFILE_BOMB), "Cannot decode x"),
    "TIFF with absurd tags": (TIFF, "Cannot decode x"),
    "TIFF without end": (ENDLESS, "Cannot decode x"),
    "numbers instead of a size": (b"P6 99999999999 1 255 ", "Cannot decode x|at most"),
    **{
        f"half a {kind}": (encoded(PICTURE, kind)[: len(encoded(PICTURE, kind)) // 2], "Cannot decode x")
        for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
    },
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("data", "words"), BYTES.values(), ids=BYTES)
def test_bytes_that_are_no_fit_image(data: bytes, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with pytest.raises(ImagesError, match=words) as caught:
        decode(data, "x", "RGB")
    check_line(str(caught.value))
    assert "0x" not in str(caught.value)
    assert time.monotonic() - started < 5
    assert capfd.readouterr() == ("", "")


KINDS = ["PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", *(["AVIF"] if features.check("avif") else [])]


@pytest.mark.parametrize("kind", KINDS)
def test_every_common_format_is_read(kind: str) -> None:
    assert decode(encoded(PICTURE, kind), "x", "L").size == PICTURE.size


@pytest.mark.parametrize("size", [(10_000_000, 1), (1, 10_000_000), (1_000_001, 3)])
def test_of_a_very_long_image_the_middle_is_used(size: tuple[int, int]) -> None:
    """Enlarged as a whole to fill the canvas, one of 10 megabytes would take 40 gigabytes."""
    strip = Image.new("L", size)
    strip.paste(255, (size[0] // 2 - 1, size[1] // 2 - 1, size[0] // 2 + 2, size[1] // 2 + 2))
    assert place(strip, (64, 64), FILTERS["bilinear"], stretch=False).getpixel((32, 32)) == 255


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_counts(kind: str) -> None:
    white, black = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8))
    data = encoded(white, kind, save_all=True, append_images=[black] * 3)
    assert decode(data, "x", "L").getextrema() == (255, 255)


def test_the_largest_image_is_read() -> None:
    assert decode(encoded(Image.new("1", (10_000, LARGEST_IMAGE // 10_000))), "x", "L").width == 10_000


SEEDS = [encoded(PICTURE, kind) for kind in KINDS] + [
    encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    encoded(PICTURE, "TIFF", compression="jpeg"),
    encoded(PICTURE.convert("P"), "PNG", interlace=1),
    encoded(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(90)]),
    encoded(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(90)]),
]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A real image of which some bytes, most of them near its start, are others."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, min(64, len(data) - 1)) | st.integers(0, len(data) - 1))
        data[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
        data = data or bytearray(1)
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(max_examples=100, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(spoiled() | st.binary(max_size=200))
def test_any_bytes_are_an_image_or_one_line(data: bytes) -> None:
    try:
        assert decode(data, "x", "RGB").mode == "RGB"
    except ImagesError as error:
        check_line(str(error))
