"""Folders of images that a stranger made: whatever lies in them, only their own images are read."""

from __future__ import annotations

import logging
import os
import socket
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phard_hub.errors import ImagesError
from tests.border.run import watched
from tests.border.strangers import (
    EPS,
    NUMBERS,
    PNG,
    Change,
    check_line,
    load,
    png,
    rows,
    table,
)
from tests.command import Phard
from tests.jobs import LABELS, write_images

SECRET = "the-secret-canary"
SECONDS = 20


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
