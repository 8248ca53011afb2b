"""Images that a stranger made: whatever lies in a folder or a parquet file, only its own images are read."""

from __future__ import annotations

import io
import logging
import os
import random
import socket
import struct
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from phard_hub.errors import HubUnavailableError, ImagesError
from phard_hub.images import LabelledImages, load_images, sources
from phard_hub.images.decoding import LARGEST_IMAGE, decode
from tests.border.run import watched
from tests.command import Phard
from tests.hub_server import Hub
from tests.jobs import LABELS, write_images

SECRET = "the-secret-canary"
ROW = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SECONDS = 20


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


def check_line(text: str) -> None:
    """One line that a terminal shows as it is, and not a long one."""
    assert text.isprintable()
    assert len(text) < 1000


KINDS = ["PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", *(["AVIF"] if features.check("avif") else [])]


@pytest.mark.parametrize("kind", KINDS)
def test_every_common_format_is_read(kind: str) -> None:
    assert decode(encoded(PICTURE, kind), "x", "L").size == PICTURE.size


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


# --- folders -------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images of each of four classes."""
    return write_images(tmp_path / "data", per_class=2)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Images of a fifth class beside the data set, and a secret."""
    (tmp_path / "secret.png").write_text(SECRET)
    write_images(tmp_path / "outside", ("private", "fox"), per_class=2)
    return tmp_path / "outside"


def load(dataset: object, **arguments: Any) -> LabelledImages:
    return load_images(str(dataset), **{"labels": LABELS, "image_size": (8, 8), **arguments})


Change = Callable[[Path], object]


def only(top: Path, *names: str) -> None:
    """Rename the class folders to these; the images of the others go."""
    for label in LABELS[len(names) :]:
        for file in (top / label).iterdir():
            file.unlink()
    for label, name in zip(LABELS, names, strict=False):
        (top / label).rename(top / name)


def link_class(top: Path) -> None:
    for file in (top / "fox").iterdir():
        file.unlink()
    (top / "fox").rmdir()
    (top / "fox").symlink_to(top.parent / "outside" / "fox")


def in_place_of(name: str, make: Callable[[Path], Any]) -> Change:
    """Make something else in the place of one image."""

    def change(top: Path) -> None:
        (top / name).unlink()
        make(top / name)

    return change


def bind(path: Path) -> None:
    os.chdir(path.parent)  # the name of a socket may be 108 bytes long
    socket.socket(socket.AF_UNIX).bind(path.name)


def deeper(top: Path) -> None:
    (top.parent / "all").mkdir()
    top.rename(top.parent / "all" / "kinds")
    (top.parent / "all").rename(top)


def empty(top: Path) -> None:
    only(top)


def shout(name: str, content: bytes) -> Change:
    return lambda top: (top / name).write_bytes(content)


BAD_FOLDERS: dict[str, tuple[Change, str]] = {
    "no image": (empty, "cannot be read as images"),
    "one class": (lambda top: only(top, "cat"), "cat is the only class"),
    "an empty class": (lambda top: only(top, "cat", "dog", "owl"), "no images of 1 of 4 classes: fox"),
    "a class that is a link": (link_class, "no images of 1 of 4 classes: fox"),
    "EPS with the name of a PNG": (shout("cat/0.png", EPS), r"Cannot decode cat/0\.png of "),
    "a huge image": (shout("dog/1.png", png(13_300, 13_300)), r"dog/1\.png of .* has 13300 x 13300 pixels"),
    "an unknown class": (lambda top: (top / "cat").rename(top / "ca\x1b[31mt\n"), r"not the model's: ca\?\[31mt"),
    "a class of no UTF-8": (lambda top: (top / "cat").rename(top / os.fsdecode(b"\xff")), r"not the model's: \?"),
    "a file of no UTF-8": (
        lambda top: (top / "cat" / os.fsdecode(b"\xff.png")).write_bytes(b"x"),
        r"\?\.png",
    ),
    "a name of control characters": (shout("cat/\x1b]0;x\x07.png", b"x"), r"Cannot decode cat/\?\]0;x\?\.png"),
    "classes a level too deep": (
        deeper,
        "If the folders in kinds are the classes, give that folder",
    ),
}


@pytest.mark.parametrize(("change", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_folders_that_are_refused(data: Path, outside: Path, change: Change, words: str) -> None:
    change(data)
    with pytest.raises(ImagesError, match=words) as caught:
        load(data)
    check_line(str(caught.value))


PASSED: dict[str, tuple[Change, int, str]] = {
    "link to a file": (in_place_of("cat/0.png", lambda file: file.symlink_to("../../outside/fox/0.png")), 7, "1 links"),
    "broken link": (in_place_of("cat/0.png", lambda file: file.symlink_to("nowhere")), 7, "1 links"),
    "link to a folder": (lambda top: (top / "cat/more").symlink_to("../../outside/private"), 8, "1 links"),
    "link in a circle": (lambda top: (top / "cat/more").symlink_to(".."), 8, "1 links"),
    "pipe": (in_place_of("cat/0.png", os.mkfifo), 7, "1 not regular files"),
    "socket": (in_place_of("cat/0.png", bind), 7, "1 not regular files"),
    "too large": (lambda top: os.truncate(top / "cat/0.png", 65 << 20), 7, "1 too large"),
    "heic": (lambda top: (top / "cat/0.png").rename(top / "cat/0.HEIC"), 7, "1 in formats that are not read"),
    "image beside the classes": (shout("0.png", PNG), 8, "1 outside of class folders"),
    "table of other files": (shout("metadata.csv", b"file_name\n../secret.png\n"), 8, "1 metadata files"),
    "parquet table": (shout("metadata.parquet", b"x"), 8, "1 metadata files"),
}
SILENT: dict[str, tuple[Change, int, str]] = {
    "hidden files": (lambda top: [shout("cat/.DS_Store", b"x")(top), shout("cat/._0.png", b"x")(top)], 8, "2 hidden"),
    "hidden folder": (lambda top: write_images(top / ".git", per_class=1), 8, "1 hidden"),
    "other files": (lambda top: [shout("cat/Thumbs.db", b"x")(top), shout("run.py", b"x")(top)], 8, "2 other files"),
}


@pytest.mark.parametrize(("change", "count", "words"), [*PASSED.values(), *SILENT.values()], ids=[*PASSED, *SILENT])
def test_what_is_passed_over_is_told(
    data: Path,
    outside: Path,
    change: Change,
    count: int,
    words: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(data)
    change(data)
    with caplog.at_level(logging.WARNING):
        images = load(data)
    assert images.source == f"{data} (train), {count} of {count} images; passed over: {words}"
    warned = [record.getMessage() for record in caplog.records]
    expected = f"Not all of {data} is read; passed over: {words}."
    assert warned == ([expected] if any(words == told for *_, told in PASSED.values()) else [])


def spread(top: Path, *splits: str) -> None:
    """Move all images of each class to each of these folders above it."""
    contents = {label: [(file.name, file.read_bytes()) for file in (top / label).iterdir()] for label in LABELS}
    only(top)
    for label in LABELS:
        (top / label).rmdir()
        for number, split in enumerate(splits):
            (top / split / label).mkdir(parents=True)
            for name, content in contents[label] * (number + 1):
                (top / split / label / f"{number}-{name}").write_bytes(content)


def renamed(*words: str) -> Change:
    """Files whose names hold words that `datasets` takes for splits."""

    def change(top: Path) -> None:
        for number, word in enumerate(words):
            for label in LABELS:
                (top / label / f"{number}.png").rename(top / label / f"{word}{number}.png")

    return change


def nested(top: Path) -> None:
    for number, label in enumerate(LABELS):
        (top / label / "dog" / "train").mkdir(parents=True)
        (top / label / f"{number % 2}.png").rename(top / label / "dog" / "train" / "x.png")


GOOD_FOLDERS: dict[str, tuple[Change, dict[str, Any], str]] = {
    "words in names of files": (renamed("evaluation-", "train_"), {}, "(train), 8 of 8"),
    "other words": (renamed("dev", "test."), {}, "(train), 8 of 8"),
    "splits": (lambda top: spread(top, "train", "test"), {"split": "test"}, "(test), 8 of 8"),
    "train is meant": (lambda top: spread(top, "train", "val"), {}, "(train), 8 of 8"),
    "val is validation": (lambda top: spread(top, "train", "val"), {"split": "validation"}, "(validation), 8 of 8"),
    "capitals": (lambda top: spread(top, "Train", "Test"), {"split": "test"}, "(test), 8 of 8"),
    "nothing but train": (lambda top: spread(top, "train"), {}, "(train), 8 of 8"),
    "folders below a class are its own": (nested, {}, "(train), 8 of 8"),
    "a class called train": (
        lambda top: (top / "fox").rename(top / "train"),
        {"labels": ("cat", "dog", "owl", "train")},
        "(train), 8 of 8",
    ),
    "classes that are called as splits": (
        lambda top: only(top, "train", "test"),
        {"labels": ("train", "test")},
        "(train), 4 of 4",
    ),
    "letters composed in another way": (
        lambda top: (top / "cat").rename(top / unicodedata.normalize("NFD", "kätzchen")),
        {"labels": (unicodedata.normalize("NFC", "Kätzchen"), *LABELS[1:])},
        "(train), 8 of 8",
    ),
    "signs of patterns": (
        lambda top: [(top / "cat").rename(top / "[c]?*"), (top / "[c]?*/0.png").rename(top / "[c]?*/**.PNG")],
        {"labels": ("[c]?*", *LABELS[1:])},
        "(train), 8 of 8",
    ),
    "names of no UTF-8": (
        lambda top: (top / "cat/0.png").rename(top / "cat" / os.fsdecode(b"\xff\xfe.png")),
        {},
        "(train), 8 of 8",
    ),
}


@pytest.mark.parametrize(("change", "arguments", "words"), GOOD_FOLDERS.values(), ids=GOOD_FOLDERS)
def test_folders_decide(data: Path, change: Change, arguments: dict[str, Any], words: str) -> None:
    change(data)
    images = load(data, **arguments)
    assert images.source == f"{data} {words} images"
    assert images.labels.bincount().tolist() == [2] * len(images.names)
    bright = images.pixels.float().mean((2, 3)).argmax(1)  # dogs and foxes are grey
    assert bright[images.labels == 0].tolist() == [0, 0]


def test_a_folder_may_have_any_name(data: Path) -> None:
    for name in (b"data[1]*", b"\xff\xfe", "ü\n\x1b[31m".encode()):
        place = data.parent / os.fsdecode(name)
        data.rename(place)
        source = load(place).source
        check_line(source)
        assert source.endswith("8 of 8 images")
        place.rename(data)


# --- parquet -------------------------------------------------------------------------------------------------


def table(images: Any, labels: Any) -> pa.Table:
    return pa.table({"image": images, "label": labels})


def rows(count: int = 4, data: bytes | None = PNG, path: str | None = None) -> pa.Array:
    return pa.array([{"bytes": data, "path": path}] * count, type=ROW)


def noted(note: bytes) -> pa.Table:
    return table(rows(), range(4)).replace_schema_metadata({b"huggingface": note})


def repeated(value: str | bytes, count: int) -> pa.Array:
    """One value in many rows, which is in the file and in the memory once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


NUMBERS = pa.array(range(4))
BAD_TABLES: dict[str, tuple[Callable[[], pa.Table], str]] = {
    "path of another file": (lambda: table(rows(data=None, path="/etc/passwd"), NUMBERS), "no image in row 0"),
    "address": (lambda: table(rows(data=None, path="http://127.0.0.1:9/x"), NUMBERS), "no image in row 0"),
    "chained address": (lambda: table(rows(data=None, path="zip://x::file:///etc/x"), NUMBERS), "no image in row 0"),
    "paths alone": (lambda: table(pa.array([{"path": "/etc/passwd"}] * 4), NUMBERS), "no bytes of images in 'image'"),
    "words instead of images": (
        lambda: pa.table({"image": ["/etc/passwd"] * 4, "label": NUMBERS}).replace_schema_metadata(
            {b"huggingface": b'{"info": {"features": {"image": {"_type": "Image"}}}}'}
        ),
        "no image columns",
    ),
    "EPS": (lambda: table(rows(data=EPS), NUMBERS), "Cannot decode row 0"),
    "a row without image": (lambda: table(pa.array([None] * 4, type=ROW), NUMBERS), "no image in row 0"),
    "only nulls": (lambda: table(pa.nulls(4), NUMBERS), "no image columns"),
    "labels of null": (lambda: table(rows(), pa.array([0, 1, None, 3])), "Row 2 has no label"),
    "labels out of range": (lambda: table(rows(), pa.array([0, 1, 2, 4])), "holds 4, but classes go from 0 to 3"),
    "labels beyond int64": (
        lambda: table(rows(), pa.array([0, 1, 2, 2**63], pa.uint64())),
        "holds 9223372036854775808",
    ),
    "lists of labels": (lambda: table(rows(), pa.array([[0], [1], [2], [3]])), "no label columns"),
    "times": (lambda: table(rows(), pa.array(range(4), pa.timestamp("s"))), "no label columns"),
    "one long word in a thousand rows": (
        lambda: table(rows(1000), repeated("x" * 10_000_000, 1000)),
        "a class name of 10000000",
    ),
    "many long words": (lambda: table(rows(), pa.array([c * 5000 for c in "abcd"])), "a class name of 5000"),
    "control characters": (lambda: table(rows(), pa.array(["ca\x1b[31mt", "dog", "owl", "fox"])), r"ca\?\[31mt"),
    "control characters in a column": (
        lambda: pa.table({"image": rows(), "a\x1b\n": list("abcd"), "b": list("abcd")}),
        r"several label columns among a\?, b",
    ),
    "a column twice": (lambda: pa.Table.from_arrays([rows(), NUMBERS, NUMBERS], ["image", "label", "label"]), "label"),
    "names out of range": (
        lambda: noted(b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}'),
        "holds 3, but classes go from 0 to 1",
    ),
    "one value that unpacks to much": (
        lambda: table(pa.array([{"bytes": bytes(65 << 20)}], type=ROW).take(pa.array([0] * 4)), NUMBERS),
        "has 65 MiB; at most 64 MiB",
    ),
    "one value in a thousand rows": (
        lambda: table(repeated(bytes(60 << 20), 1000), pa.array([0, 1, 2, 3] * 250)),
        "Cannot decode row 0",
    ),
}


@pytest.mark.parametrize(("make", "words"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_parquet_that_is_refused(tmp_path: Path, make: Callable[[], pa.Table], words: str) -> None:
    made = make()
    told = made.schema.metadata is not None  # if nothing is, dictionaries are not told from other columns
    pq.write_table(made, tmp_path / "x.parquet", compression="zstd", store_schema=told)
    with pytest.raises(ImagesError, match=words) as caught:
        load(tmp_path / "x.parquet")
    check_line(str(caught.value))


def varint(number: int) -> bytes:
    head, rest = number & 127, number >> 7
    return bytes([head | 128]) + varint(rest) if rest else bytes([head])


def footer(schema: list[bytes], claimed: int = 0) -> bytes:
    """A parquet file of which only the footer is there, in Thrift's compact protocol."""
    elements = bytes([0xFC]) + varint(len(schema)) + b"".join(schema)
    note = b"\x15\x02\x19" + elements + b"\x16" + varint(claimed << 1) + b"\x19\x0c\0"
    return b"PAR1" + note + struct.pack("<I", len(note)) + b"PAR1"


def group(name: bytes, children: int) -> bytes:
    return b"\x48" + varint(len(name)) + name + b"\x15" + varint(children << 1) + b"\0"


def leaf(name: bytes, kind: int) -> bytes:
    return b"\x15" + varint(kind << 1) + b"\x25\0\x18" + varint(len(name)) + name + b"\0"


COLUMNS = [leaf(b"image", 6), leaf(b"label", 1)]
FILES: dict[str, tuple[bytes, str]] = {
    "no parquet": (b"hello", "cannot be read"),
    "nothing": (b"", "cannot be read"),
    "noise": (random.Random(0).randbytes(2000) + b"PAR1", "cannot be read"),
    "two thousand million rows": (footer([group(b"x", 2), *COLUMNS], 2**31), "claims 2147483648 rows"),
    "too few columns": (footer([group(b"x", 2**30), *COLUMNS]), "cannot be read"),
    "a thousand levels": (footer([group(b"x", 1)] * 1000 + COLUMNS[:1]), "cannot be read"),
    "no rows": (footer([group(b"x", 2), *COLUMNS]), "fewer than 2 classes"),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_files_that_are_no_good_parquet(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(ImagesError, match=words) as caught:
        load(tmp_path / "x.parquet")
    check_line(str(caught.value))


@pytest.mark.parametrize("note", [b"[" * 200_000, b"[]", b'{"info": []}', b'{"info": {"features": 3}}', b"\xff"])
def test_notes_of_datasets_that_are_none(tmp_path: Path, note: bytes) -> None:
    pq.write_table(noted(note), tmp_path / "x.parquet")
    assert load(tmp_path / "x.parquet").labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("images", [rows(), pa.array([PNG] * 4), pa.array([PNG] * 4, pa.large_binary())])
@pytest.mark.parametrize(
    "labels", [pa.array(LABELS), pa.array(LABELS).dictionary_encode(), NUMBERS, NUMBERS.cast("int8")]
)
def test_ways_to_write_images_and_labels(tmp_path: Path, images: pa.Array, labels: pa.Array) -> None:
    pq.write_table(table(images, labels), tmp_path / "x.parquet")
    assert load(tmp_path / "x.parquet").labels.tolist() == [0, 1, 2, 3]


def test_row_groups_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(rows(data=PNG + bytes(9000)), NUMBERS), tmp_path / "x.parquet", compression="zstd")
    monkeypatch.setattr("phard_hub.images.parquet.LARGEST_GROUP", 9000)
    with pytest.raises(ImagesError, match=r"'image' has \d+ bytes in one row group; at most 9000"):
        load(tmp_path / "x.parquet")


def test_files_that_number_classes_differently(tmp_path: Path) -> None:
    for number, names in enumerate((LABELS, LABELS[::-1])):
        told = str(list(names)).replace("'", '"')
        note = f'{{"info": {{"features": {{"label": {{"_type": "ClassLabel", "names": {told}}}}}}}}}'
        pq.write_table(noted(note.encode()), tmp_path / f"{number}.parquet")
    with pytest.raises(ImagesError, match="do not agree in what 'label' holds"):
        load(tmp_path)


PLACES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "link": (lambda top: (top / "y.parquet").symlink_to("x.parquet"), "y.parquet", "is a link"),
    "pipe": (lambda top: os.mkfifo(top / "y.parquet"), "y.parquet", "is no regular file"),
    "folder of a name": (lambda top: (top / "y.parquet").mkdir(), "y.parquet", "cannot be read as images"),
    "links alone": (lambda top: (top / "y.parquet").symlink_to("x.parquet"), "y*.parquet", "is a link"),
    "no file": (lambda top: None, "[y]*.parquet", "neither an existing file"),
    "long name": (lambda top: None, "y" * 5000, "neither an existing file"),
    "zero": (lambda top: None, "y\0z", "neither an existing file"),
    "nobody's home": (lambda top: None, "~nobody-of-this-name/x.parquet", "neither an existing file"),
}


@pytest.mark.parametrize(("make", "name", "words"), PLACES.values(), ids=PLACES)
def test_what_is_no_regular_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], name: str, words: str
) -> None:
    pq.write_table(table(rows(), NUMBERS), tmp_path / "x.parquet")
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImagesError, match=words) as caught:
        load(name)
    check_line(str(caught.value))


@pytest.mark.parametrize("name", ["{}", "{}/**/*.parquet", "{}/*.parquet"])
def test_links_beside_parquet_are_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / "more").mkdir(parents=True)
    pq.write_table(table(rows(), NUMBERS), tmp_path / "data" / "x.parquet")
    pq.write_table(table(rows(), NUMBERS), tmp_path / "y.parquet")
    (tmp_path / "data" / "y.parquet").symlink_to("../y.parquet")
    (tmp_path / "data" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "data" / "z.parquet")
    source = load(name.format(tmp_path / "data")).source
    assert "4 of 4 images; passed over: " in source


ADDRESSES = (
    "http://127.0.0.1:9/x.zip",
    "file:///etc/passwd",
    "zip://x::file:///etc/x.zip",
    "hf://datasets/a/b",
    "//x/y",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_no_data_sets(address: str, phard: Phard, tiny_checkpoint: Path) -> None:
    done = phard("measure", tiny_checkpoint, "--images", address)
    assert done.code == 2
    assert "is neither an existing file or folder nor a Hub id" in done.complaint


# --- under watch ---------------------------------------------------------------------------------------------


def canary(top: Path) -> str:
    return str(top.parent / "secret.png")


def parquet_of(images: Callable[[Path], pa.Array]) -> Change:
    def change(top: Path) -> None:
        empty(top)
        pq.write_table(table(images(top), NUMBERS), top / "x.parquet")

    return change


def bombs(top: Path) -> None:
    for number in range(20):
        (top / "cat" / f"a{number}.png").write_bytes(png(13_300, 13_300))


def pipe(top: Path) -> None:
    for number in range(2):
        (top / "fox" / f"{number}.png").unlink()
        os.mkfifo(top / "fox" / f"{number}.png")


def told_elsewhere(top: Path) -> None:
    """One class has no images, but files beside the classes tell of some."""
    only(top, "cat", "dog", "owl")
    (top / "metadata.csv").write_text("file_name,label\n../secret.png,fox\n")
    (top / "data.py").write_text("import os; os.system('id')")


WATCHED: dict[str, tuple[Change, str]] = {
    "pipe": (pipe, "no images of 1 of 4 classes: fox"),
    "EPS": (shout("cat/0.png", EPS), "Cannot decode cat/0.png"),
    "path of a secret": (parquet_of(lambda top: rows(data=None, path=canary(top))), "no image in row 0"),
    "address": (parquet_of(lambda top: rows(data=None, path="http://127.0.0.1:9/x")), "no image in row 0"),
    "class that is a link": (link_class, "no images of 1 of 4 classes: fox"),
    "bombs": (bombs, "has 13300 x 13300 pixels"),
    "table of other files, and a script": (told_elsewhere, "no images of 1 of 4 classes: fox"),
}


@pytest.mark.parametrize(("change", "words"), WATCHED.values(), ids=WATCHED)
def test_nothing_is_run_and_nothing_else_is_read(
    data: Path, outside: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, change: Change, words: str
) -> None:
    program = data.parent / "bin" / "gs"  # which Pillow would start for EPS
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    change(data)
    started = time.monotonic()
    done, notes = watched("measure", tiny_checkpoint, "--images", data, folders=(data, tiny_checkpoint), seconds=60)
    assert time.monotonic() - started < SECONDS
    assert notes == []
    assert done.code == 2, done.err
    assert words in done.complaint
    assert SECRET not in done.out + done.err


# --- on a Hub ------------------------------------------------------------------------------------------------


def in_bytes(made: pa.Table) -> bytes:
    data = io.BytesIO()
    pq.write_table(made, data)
    return data.getvalue()


def folder_on_hub(extra: dict[str, bytes]) -> dict[str, bytes]:
    return {**{f"train/{label}/{number}.png": PNG for label in LABELS for number in range(2)}, **extra}


def card(place: str) -> dict[str, bytes]:
    return {"README.md": f"---\nconfigs:\n- config_name: default\n  data_files: {place}\n---\n".encode()}


IMAGE_NOTE = b'{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": %s}}}}'
NAMED = b'["cat", "dog", "owl", "fox"]'
TRAITOR = table(rows(data=None, path="/etc/passwd"), NUMBERS).replace_schema_metadata(
    {b"huggingface": IMAGE_NOTE % NAMED}
)
BAD_HUB: dict[str, tuple[dict[str, bytes], str]] = {
    "a row names a file": ({"x.parquet": in_bytes(TRAITOR)}, "names /etc/passwd, which is no file of its own|no image"),
    "card names a file": (
        {**card("/etc/*.conf"), "x.csv": b"a\n1\n"},
        r"names /etc/\*\.conf, which is no file of its own",
    ),
    "card names an address": (folder_on_hub(card("http://127.0.0.1:9/x.zip")), "names http://127"),
    "card names a chain": (folder_on_hub(card('"zip://x::file:///etc/x.zip"')), "names zip://x::file"),
    "card leads up": (folder_on_hub(card("../other/*.png")), r"names \.\./other"),
    "other card": (
        folder_on_hub({".huggingface.yaml": b"configs:\n- config_name: default\n  data_files: /etc/*\n"}),
        "names /etc/",
    ),
    "table names a file": (
        folder_on_hub({"train/metadata.csv": b"file_name,label\n../../../../etc/passwd,cat\n"}),
        "cannot be read as images",
    ),
    "no images": ({"x.csv": b"image,label\n/etc/passwd,cat\n"}, "holds files for 'csv', not images"),
}


@pytest.mark.usefixtures("brief_waits")
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("files", "words"), BAD_HUB.values(), ids=BAD_HUB)
def test_data_sets_on_a_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], words: str, large: bool
) -> None:
    monkeypatch.setattr(sources, "LARGE", 0 if large else 2**30)
    hub.create("org/data", files, kind="datasets")
    with pytest.raises((ImagesError, HubUnavailableError), match=words) as caught:
        load("org/data", max_images=4)
    assert caught.type is ImagesError
    check_line(str(caught.value))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that is there only if a script ran."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


def test_a_script_in_a_data_set_is_not_run(hub: Hub, marker: Path) -> None:
    script = f"from pathlib import Path; Path({str(marker)!r}).touch()".encode()
    hub.create("org/data", folder_on_hub({"loader.py": script, "train/cat/setup.py": script}), kind="datasets")
    assert len(load("org/data")) == 8
    hub.create("org/scripted", folder_on_hub({"scripted.py": script}), kind="datasets")
    with pytest.raises(ImagesError, match="Dataset scripts are no longer supported"):
        load("org/scripted")
