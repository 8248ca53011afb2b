"""Parquet that a stranger made: only what is in its rows is read, and not more than fits."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phard_hub.errors import ImagesError
from tests.border.strangers import (
    EPS,
    NUMBERS,
    PNG,
    ROW,
    check_line,
    load,
    rows,
    table,
)
from tests.jobs import LABELS


def noted(note: bytes) -> pa.Table:
    return table(rows(), range(4)).replace_schema_metadata({b"huggingface": note})


def repeated(value: str | bytes, count: int) -> pa.Array:
    """One value in many rows, which is in the file and in the memory once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


BAD_TABLES: dict[str, tuple[Callable[[], pa.Table], str]] = {
    "path of another file": (lambda: table(rows(data=None, path="/etc/passwd"), NUMBERS), "no image in row 0"),
    "address": (lambda: table(rows(data=None, path="http://127.0.0.1:9/x"), NUMBERS), "no image in row 0"),
    "chained address": (lambda: table(rows(data=None, path="zip://x::file:///etc/x"), NUMBERS), "no image in row 0"),
    "paths alone": (lambda: table(pa.array([{"path": "/etc/passwd"}] * 4), NUMBERS), "no bytes of images in 'image'"),
    "words instead of images": (
        lambda: pa.table({"image": ["/etc/passwd"] * 4, "label": NUMBERS}).replace_schema_metadata(
            {b"huggingface": b'{"info": {"features": {"image": {"_type": "Image"}}}}'}
        ),
        "no image column",
    ),
    "EPS": (lambda: table(rows(data=EPS), NUMBERS), "Cannot decode row 0"),
    "a row without image": (lambda: table(pa.array([None] * 4, type=ROW), NUMBERS), "no image in row 0"),
    "only nulls": (lambda: table(pa.nulls(4), NUMBERS), "no image column"),
    "labels of null": (lambda: table(rows(), pa.array([0, 1, None, 3])), "Row 2 has no label"),
    "labels out of range": (
        lambda: table(rows(), pa.array([0, 1, 2, 4])),
        "1 of the data set's 4 classes are not the model's: 4",
    ),
    "labels beyond int64": (
        lambda: table(rows(), pa.array([0, 1, 2, 2**63], pa.uint64())),
        "not the model's: 0, 1, 2, 9223372036854775808",
    ),
    "lists of labels": (lambda: table(rows(), pa.array([[0], [1], [2], [3]])), "no label column"),
    "times": (lambda: table(rows(), pa.array(range(4), pa.timestamp("s"))), "no label column"),
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
