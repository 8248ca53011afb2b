"""CSV lists of images, what `save_to_disk` wrote, and names of splits; made by strangers, too."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages
from tests.border.strangers import check_line, load
from tests.border.watched import watching
from tests.jobs import LABELS, write_images

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def check_colors(images: LabelledImages, count: int) -> None:
    assert len(images) == count
    assert [tuple(pixels[:, 4, 4].tolist()) for pixels in images.pixels] == [COLORS[k] for k in images.labels]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixteen images whose folders say nothing, and the secret beside them."""
    (tmp_path / "data" / "some, [more]").mkdir(parents=True)
    for number in range(16):
        Image.new("RGB", (8, 8), COLORS[number % 4]).save(tmp_path / "data" / "some, [more]" / f"{number}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    return tmp_path / "data"


def listed(folder: Path, head: str = "file_name,label", change: Callable[[list[str]], object] | None = None) -> Path:
    lines = [f'"./some, [more]/{number}.png",{LABELS[number % 4]}' for number in range(16)]
    if change:
        change(lines)
    path = folder / "list.csv"
    path.write_text("\n".join([head, *lines]) + "\n\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("head", ["file_name,label", "path,class", "image,label", "\ufeffPath , Label", "image,class"])
def test_a_list_of_paths_and_labels(folder: Path, head: str) -> None:
    images = load(listed(folder, head))
    check_colors(images, 16)
    assert images.source == f"{folder}/list.csv (train), 16 of 16 images"
    check_colors(load(folder / "list.csv", max_images=8, split="train"), 8)


def test_lists_as_other_programs_write_them(folder: Path) -> None:
    """Spreadsheets separate by semicolons or tabs, Windows writes backslashes and UTF-16, pandas whole paths."""
    (folder / "some, [more]").rename(folder / "more")
    rows = [(f"more/{number}.png", LABELS[number % 4]) for number in range(16)]
    for head, form, encoding in (
        ("filename;labels", "{0};{1}", "utf-8"),
        ("path\tlabel", "{0}\t{1}", "utf-16"),
        ("filepath,target", ".\\{2},{1}", "utf-8-sig"),
        (",image_path,label", f"7,{folder}/{{0}},{{1}}", "utf-8"),
    ):
        lines = [form.format(path, label, path.replace("/", "\\")) for path, label in rows]
        (folder / "x.csv").write_text("\n".join([head, *lines]), encoding=encoding)
        check_colors(load(folder / "x.csv"), 16)


def test_columns_in_another_order_and_more_of_them(folder: Path) -> None:
    lines = [f'{number},{LABELS[number % 4]},"some, [more]/{number}.png"' for number in range(16)]
    (folder / "x.CSV").write_text("\r\n".join(["id,label,path", *lines]))
    check_colors(load(folder / "x.CSV"), 16)


def first(line: str) -> Callable[[list[str]], object]:
    return lambda lines: lines.__setitem__(0, line)


BAD_LISTS: dict[str, tuple[str, Callable[[list[str]], object] | None, str]] = {
    "above": ("path,label", first("../secret.png,cat"), "Cannot read ../secret.png: it is no name of a file in the"),
    "roundabout": ("path,label", first("some/../../secret.png,cat"), "it is no name of a file in the folder"),
    "absolute": ("path,label", first("/etc/passwd,cat"), "Cannot read /etc/passwd: it is no name of a file in"),
    "address": ("path,label", first("http://127.0.0.1:9/x.png,cat"), "Cannot read http:/"),
    "link": ("path,label", first("link.png,cat"), "Cannot read link.png: it is a link"),
    "folder that is a link": ("path,label", first("up/secret.png,cat"), "Cannot read up/secret.png: it is a link"),
    "pipe": ("path,label", first("pipe,cat"), "Cannot read pipe: it is no regular file"),
    "folder": ("path,label", first('"some, [more]",cat'), "it is no regular file"),
    "nothing": ("path,label", first("none.png,cat"), "Cannot read none.png: No such file or directory"),
    "zero byte": ("path,label", first("a\0b,cat"), "list.csv cannot be read as|Cannot read"),
    "no path": ("path,label", first(",cat"), "Cannot read"),
    "no label": ("path,label", first('"some, [more]/0.png",'), "Row 0 has no label"),
    "no head": ('"some, [more]/0.png",cat', None, r"has the columns some, \[more\]/0.png, cat; paths are in one of"),
    "other head": ("a,b", None, "has the columns a, b"),
    "one column": ("path", None, "Row 1 of .* has 2 columns, and the first line 1"),
    "a comma": ("path,label", first("some, [more]/0.png,cat"), "Row 1 of .* has 3 columns, and the first line 2"),
    "an open quotation": ("path,label", first('"x'), "cannot be read as a list: ',' expected"),
    "a long field": ("path,label", first("x" * 200_000 + ",cat"), "cannot be read as a list: field larger"),
    "a long name": ("path,label", first("x" * 5000 + ",cat"), "Cannot read x+….*: File name too long"),
    "escape codes": ("path,label", first("\x1b[31m.png,cat"), r"Cannot read \?\[31m.png"),
}


@pytest.mark.parametrize(("head", "change", "words"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_lists_that_are_refused(
    folder: Path, tmp_path: Path, head: str, change: Callable[[list[str]], object] | None, words: str
) -> None:
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe")
    path = listed(folder, head, change)
    with pytest.raises(ImagesError, match=words) as caught, watching(tmp_path / "notes", [folder]):
        load(path)
    check_line(str(caught.value))
    assert (tmp_path / "notes").read_text() == ""


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"\xff\xfe\0", "no UTF-8"), (b"\n\n", "is empty")])
def test_files_that_are_no_lists(folder: Path, content: bytes, words: str) -> None:
    (folder / "x.csv").write_bytes(content)
    with pytest.raises(ImagesError, match=words) as caught:
        load(folder / "x.csv")
    check_line(str(caught.value))


def test_a_list_is_no_link(folder: Path) -> None:
    (folder / "x.csv").symlink_to(listed(folder))
    with pytest.raises(ImagesError, match="is a link"):
        load(folder / "x.csv")


def png(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), COLORS[number % 4]).save(data, "PNG")
    return data.getvalue()


def dataset(count: int = 16, label: Any = None) -> Dataset:
    features = Features({"image": ImageFeature(), "label": label or ClassLabel(names=list(LABELS))})
    rows = [{"bytes": png(number), "path": None} for number in range(count)]
    words = isinstance(label, Value)
    labels = [LABELS[number % 4] if words else number % 4 for number in range(count)]
    return Dataset.from_dict({"image": rows, "label": labels}, features=features)


@pytest.mark.parametrize("label", [ClassLabel(names=list(LABELS)), Value("string")])
@pytest.mark.parametrize("files", [1, 3])
def test_what_save_to_disk_wrote(tmp_path: Path, label: Any, files: int) -> None:
    dataset(label=label).save_to_disk(tmp_path / "my[1]data", num_shards=files)
    shutil.copy(next((tmp_path / "my[1]data").glob("*.arrow")), tmp_path / "my[1]data" / "cache-x.arrow")
    images = load(tmp_path / "my[1]data")
    check_colors(images, 16)
    assert images.source == f"{tmp_path}/my[1]data (train), 16 of 16 images"
    check_colors(load(tmp_path / "my[1]data", max_images=8), 8)


def test_images_of_files_are_saved_whole(tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(write_images(tmp_path / "images", per_class=4).rglob("*.png"))]
    features = Features({"image": ImageFeature(), "label": Value("string")})
    labels = [Path(path).parent.name for path in paths]
    Dataset.from_dict({"image": paths, "label": labels}, features=features).save_to_disk(tmp_path / "saved")
    shutil.rmtree(tmp_path / "images")
    assert load(tmp_path / "saved").labels.bincount().tolist() == [4] * 4


def test_splits_of_what_save_to_disk_wrote(tmp_path: Path) -> None:
    DatasetDict({"train": dataset(16), "validation": dataset(8)}).save_to_disk(tmp_path / "saved")
    check_colors(load(tmp_path / "saved"), 16)
    check_colors(load(tmp_path / "saved", split="val"), 8)
    with pytest.raises(ImagesError, match="has no split 'test'; it has train, validation"):
        load(tmp_path / "saved", split="test")


def state(**changes: Any) -> Callable[[Path], object]:
    def change(top: Path) -> None:
        content = json.loads((top / "state.json").read_text())
        (top / "state.json").write_text(json.dumps(content | changes))

    return change


def spoil(position: int) -> Callable[[Path], object]:
    def change(top: Path) -> None:
        (file,) = top.glob("*.arrow")
        content = bytearray(file.read_bytes())
        content[position : position + 8] = b"\xff" * 8
        file.write_bytes(content)

    return change


def cut(top: Path) -> None:
    (file,) = top.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:1500])


BAD_SAVED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file above": (state(_data_files=[{"filename": "../x.arrow"}]), r"\.\./x\.arrow is no file of its own"),
    "a file elsewhere": (state(_data_files=[{"filename": "/etc/passwd"}]), "/etc/passwd is no file of its own"),
    "no files": (state(_data_files=[]), "does not say which files"),
    "odd files": (state(_data_files=[1]), "does not say which files"),
    "odd state": (lambda top: (top / "state.json").write_text("[]"), "does not say which files"),
    "no JSON": (lambda top: (top / "state.json").write_text("{"), "does not say which files"),
    "cut off": (cut, "cannot be read as images|missing|columns"),
    "broken head": (spoil(0), "cannot be read as images"),
    "broken schema": (spoil(40), "cannot be read as images"),
}


@pytest.mark.parametrize(("change", "words"), BAD_SAVED.values(), ids=BAD_SAVED)
def test_saved_data_that_is_refused(tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    dataset().save_to_disk(tmp_path / "saved")
    change(tmp_path / "saved")
    with pytest.raises(ImagesError, match=words) as caught:
        load(tmp_path / "saved")
    check_line(str(caught.value))


def test_paths_in_saved_data_are_not_followed(tmp_path: Path) -> None:
    dataset().save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    with pa.ipc.open_stream(file.read_bytes()) as reader:
        table = reader.read_all()
    rows = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}] * 16, type=table.schema.field("image").type)
    table = table.set_column(0, table.schema.field("image"), rows)
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ImagesError, match="no image in row 0"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_compressed_arrow_is_not_unpacked(tmp_path: Path, compression: str | None) -> None:
    """A few bytes of it may be more than the memory holds."""
    dataset().save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    with pa.ipc.open_stream(file.read_bytes()) as reader:
        table = reader.read_all()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(file, table.schema, options=options) as writer:
        writer.write_table(table)
    if compression is None:
        check_colors(load(tmp_path / "saved"), 16)
    else:
        with pytest.raises(ImagesError, match=r"arrow is compressed, or holds more than rows\."):
            load(tmp_path / "saved")


def test_offsets_that_lead_out_of_the_file(tmp_path: Path) -> None:
    """Each broken byte is an error in one line or changes what is read, and nothing crashes."""
    dataset(4).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    content = file.read_bytes()
    for position in range(0, len(content) - 8, len(content) // 150):
        file.write_bytes(content[:position] + b"\xff\xff\xff\x7f" + content[position + 4 :])
        try:
            load(tmp_path / "saved")
        except ImagesError as error:
            check_line(str(error))


@pytest.mark.parametrize(("there", "wanted"), [("val", "validation"), ("validation", "val"), ("Valid", "val")])
def test_names_of_the_validation_split(tmp_path: Path, there: str, wanted: str) -> None:
    write_images(tmp_path / "data" / "train", per_class=3)
    write_images(tmp_path / "data" / there, per_class=2)
    assert len(load(tmp_path / "data", split=wanted)) == 8
    with pytest.raises(ImagesError, match="has no split 'test'"):
        load(tmp_path / "data", split="test")
