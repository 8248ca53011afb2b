"""Labelled images: how they are found, matched to the model's classes, decoded, chosen and split."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages, demo_images, load_images
from phard_hub.images.decoding import decode

LABELS = ("cat", "dog", "owl")
COLORS = {"cat": (255, 0, 0), "dog": (0, 255, 0), "owl": (0, 0, 255)}


def png(image: Image.Image) -> dict[str, Any]:
    data = io.BytesIO()
    image.save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


def parquet(path: Path, rows: list[Any], labels: list[Any], feature: Any, **columns: list[Any]) -> str:
    kinds = {name: Value("string") for name in columns}
    features = Features({"image": ImageFeature(), "label": feature, **kinds})
    Dataset.from_dict({"image": rows, "label": labels, **columns}, features=features).to_parquet(str(path))
    return str(path)


def colored(names: list[str]) -> list[dict[str, Any]]:
    return [png(Image.new("RGB", (8, 8), COLORS[name])) for name in names]


def load(dataset: str, **arguments: Any) -> LabelledImages:
    return load_images(dataset, **{"labels": LABELS, "image_size": (8, 8), "channels": 3, **arguments})


def check_colors(images: LabelledImages) -> None:
    for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True):
        assert tuple(pixels[:, 4, 4].tolist()) == COLORS[LABELS[label]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, color in COLORS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (8, 8), color).save(tmp_path / "data" / name / f"{k}.png")
    return tmp_path / "data"


def test_a_folder_with_a_sub_folder_per_class(folder: Path) -> None:
    images = load(str(folder))
    assert images.pixels.shape == (12, 3, 8, 8)
    assert images.pixels.dtype == torch.uint8
    assert images.names == LABELS
    check_colors(images)


@pytest.mark.parametrize("form", ["file", "folder", "pattern"])
def test_parquet(tmp_path: Path, form: str) -> None:
    names = ["owl", "cat", "dog"] * 2
    for k in range(2):
        path = tmp_path / f"part-{k}.parquet"
        parquet(
            path,
            colored(names),
            [["dog", "owl", "cat"].index(n) for n in names],
            ClassLabel(names=["dog", "owl", "cat"]),
        )
    dataset = {"file": str(path), "folder": str(tmp_path), "pattern": str(tmp_path / "part-*.parquet")}[form]
    images = load(dataset)
    assert len(images) == (6 if form == "file" else 12)
    check_colors(images)


@pytest.mark.parametrize(
    ("feature", "values", "labels"),
    [
        (ClassLabel(names=["Owl ", "CAT", "dog"]), [1, 2, 0], LABELS),  # by name, whatever the case
        (ClassLabel(names=["dog", "owl", "cat", "cow"]), [2, 0, 1], LABELS),  # one that no row uses
        (Value("string"), ["cat", "dog", "owl"], LABELS),
        (Value("int64"), [0, 1, 2], LABELS),  # numbers without names
        (Value("uint8"), [0, 1, 2], LABELS),
        (Value("int64"), [0, 1, 2], ("LABEL_0", "LABEL_1", "LABEL_2")),
        (Value("int64"), [1, 2, 3], ("LABEL_0", "LABEL_1", "LABEL_2")),  # all of them, from 1
        (ClassLabel(names=["0", "1", "2"]), [0, 1, 2], LABELS),
        (Value("string"), ["0", "1", "2"], LABELS),
    ],
)
def test_labels_become_the_models(tmp_path: Path, feature: Any, values: list[Any], labels: tuple[str, ...]) -> None:
    path = parquet(tmp_path / "x.parquet", colored(["cat", "dog", "owl"]), values, feature)
    assert load(path, labels=labels).labels.tolist() == [0, 1, 2]


def test_numbers_as_words_are_not_sorted_as_words(tmp_path: Path) -> None:
    rows = [png(Image.new("RGB", (8, 8)))] * 11
    path = parquet(tmp_path / "x.parquet", rows, [str(k) for k in range(11)], Value("string"))
    assert load(path, labels=[f"LABEL_{k}" for k in range(11)]).labels.tolist() == list(range(11))


def test_equal_lists_may_hold_a_name_twice(tmp_path: Path) -> None:
    names = ["crane", "crane", "owl"]
    path = parquet(tmp_path / "x.parquet", colored(["cat", "dog", "owl"]), [0, 1, 2], Value("int64"))
    assert load(path, labels=names).labels.tolist() == [0, 1, 2]


def test_a_name_that_the_model_has_twice_says_nothing(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", colored(["cat", "dog"]), ["CRANE", "owl"], Value("string"))
    with pytest.raises(ImagesError, match=r"Names that the model has twice \(crane, Crane\) do not say"):
        load(path, labels=("crane", "Crane", "owl"))


@pytest.mark.parametrize(
    ("feature", "values", "expected"),
    [
        (
            ClassLabel(names=["auto", "dog", "owl"]),
            [0, 1, 2],
            r"1 of the data set.s 3 classes.*: auto\..* does not have: cat\.",
        ),
        (Value("int64"), [0, 1, 5], r"1 of the data set.s 3 classes are not the model.s: 5\."),
        (Value("int64"), [-1, 1, 2], "holds -1"),
        (Value("int64"), [0, None, 2], "Row 1 has no label"),
        (Value("float32"), [0.0, 1.0, 2.0], "no label column: 'label' holds"),
        (ClassLabel(names=["cat", "dog", "owl"]), [0, 1, 1], "no images of 1 of 3 classes: owl"),
        (ClassLabel(names=["cat", "dog", "owl"]), [1, 1, 1], "fewer than 2 classes"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, feature: Any, values: list[Any], expected: str) -> None:
    path = parquet(tmp_path / "x.parquet", colored(["cat", "dog", "owl"]), values, feature)
    with pytest.raises(ImagesError, match=expected) as caught:
        load(path)
    assert caught.value.advice
    assert "\n" not in str(caught.value)


def test_columns_can_be_named(tmp_path: Path) -> None:
    kinds = {"photo": ImageFeature(), "label": Value("string"), "kind": Value("string")}
    rows = {"photo": colored(list(LABELS)), "label": ["x", "y", "z"], "kind": list(LABELS)}
    Dataset.from_dict(rows, features=Features(kinds)).to_parquet(str(tmp_path / "x.parquet"))
    check_colors(load(str(tmp_path / "x.parquet"), label_column="kind", image_column="photo"))
    with pytest.raises(ImagesError, match="No column 'pictures' among photo, label, kind"):
        load(str(tmp_path / "x.parquet"), image_column="pictures")


def test_a_column_that_cannot_be_guessed(tmp_path: Path) -> None:
    kinds = {"image": ImageFeature(), "one": Value("string"), "two": Value("string")}
    rows = {"image": colored(list(LABELS)), "one": list(LABELS), "two": list(LABELS)}
    Dataset.from_dict(rows, features=Features(kinds)).to_parquet(str(tmp_path / "x.parquet"))
    with pytest.raises(ImagesError, match="several label columns among one, two"):
        load(str(tmp_path / "x.parquet"))


NO_IMAGES: dict[str, Any] = {
    "paths": "a.png",
    "base64": base64.b64encode(b"an image").decode(),
    "numbers": [0] * 64,
    "rows of numbers": [[0.5] * 8] * 8,
    "images in a list": [0, 1],
    "one number": 7,
}


@pytest.mark.parametrize("value", NO_IMAGES.values(), ids=NO_IMAGES)
def test_columns_that_hold_no_image_files(tmp_path: Path, value: Any) -> None:
    data = Dataset.from_dict({"image": [value] * 16, "label": [*LABELS, "cat"] * 4})
    data.to_parquet(str(tmp_path / "x.parquet"))
    data.save_to_disk(tmp_path / "saved")
    for place in (tmp_path / "x.parquet", tmp_path / "saved"):
        for named, problem in (
            (None, "has no image column: 'image' holds"),
            ("image", "'image' holds text or numbers"),
        ):
            with pytest.raises(ImagesError, match=problem) as caught:
                load(str(place), image_column=named)
            assert "Paths, base64 and lists of numbers are not read" in caught.value.advice
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["my[1]images", "what?", "*", "[", "ü[!a]"])
def test_signs_of_patterns_in_names_of_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "my1images").mkdir()  # which the pattern fits
    path = parquet(tmp_path / name / "x.parquet", colored(list(LABELS)), [0, 1, 2], Value("int64"))
    parquet(tmp_path / "my1images" / "y.parquet", colored(["cat"]), [0], Value("int64"))
    for dataset in (path, str(Path(path).parent), f"{Path(path).parent}/", f"{Path(path).parent}/*.parquet"):
        assert len(load(dataset)) == 3
    with pytest.raises(ImagesError, match="neither an existing file or folder"):
        load(f"{Path(path).parent}/none.parquet")


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_converted(tmp_path: Path, mode: str, channels: int) -> None:
    grey = np.repeat(np.array([0, 255], dtype=np.uint8), 32).reshape(8, 8)
    image = Image.fromarray(grey)
    if mode in ("I;16", "I"):
        image = Image.fromarray((grey.astype(np.uint16) * 257) if mode == "I;16" else grey.astype(np.int32))
    else:
        image = image.convert(mode)
    data = io.BytesIO()
    image.save(data, "TIFF")
    rows = [{"bytes": data.getvalue(), "path": None}] * 3
    images = load(parquet(tmp_path / "x.parquet", rows, [0, 1, 2], Value("int64")), channels=channels)
    assert images.pixels.shape == (3, channels, 8, 8)
    assert torch.equal(images.pixels[0], torch.from_numpy(grey).expand(channels, 8, 8))


def test_photos_stand_upright(tmp_path: Path) -> None:
    array = np.zeros((8, 8, 3), dtype=np.uint8)
    array[:4] = 255
    exif = Image.Exif()
    exif[274] = 3  # rotated by 180 degrees
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG", exif=exif)
    rows = [{"bytes": data.getvalue(), "path": None}] * 3
    images = load(parquet(tmp_path / "x.parquet", rows, [0, 1, 2], Value("int64")))
    assert images.pixels[0, :, :4].max() == 0
    assert images.pixels[0, :, 4:].min() == 255


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (16, 8), (5, 9), (300, 7), (1, 1)])
def test_any_size_comes_onto_the_canvas(tmp_path: Path, size: tuple[int, int], stretch: bool) -> None:
    rows = [png(Image.new("RGB", size, "red"))] * 3
    path = parquet(tmp_path / "x.parquet", rows, [0, 1, 2], Value("int64"))
    images = load(path, image_size=(6, 8), stretch=stretch)
    assert images.pixels.shape == (3, 3, 6, 8)
    assert (images.pixels[:, 0] == 255).all()


def test_scales_and_crops_as_image_processors_do(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessorPil

    array = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    size: dict[str, Any] = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    processor: Any = CLIPImageProcessorPil(**size, do_rescale=False, do_normalize=False)
    real = processor(images=Image.fromarray(array), return_tensors="pt")["pixel_values"][0]
    path = parquet(tmp_path / "x.parquet", [png(Image.fromarray(array))] * 3, [0, 1, 2], Value("int64"))
    assert torch.equal(load(path, image_size=(16, 16), resample="bicubic").pixels[0], real)


@pytest.mark.parametrize(
    ("spoiled", "expected"),
    [
        (lambda data: data[:60], "Cannot decode row 1"),
        (lambda data: b"no image", "Cannot decode row 1"),
        (lambda data: b"", "no image in row 1"),
    ],
)
def test_broken_images_are_named(tmp_path: Path, spoiled: Any, expected: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    rows = [png(Image.fromarray(noise)) for _ in LABELS]
    rows[1]["bytes"] = spoiled(rows[1]["bytes"])
    with pytest.raises(ImagesError, match=expected) as caught:
        load(parquet(tmp_path / "x.parquet", rows, [0, 1, 2], Value("int64")))
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "dog" / "2.png").write_bytes((folder / "dog" / "2.png").read_bytes()[:50])
    with pytest.raises(ImagesError, match=r"dog/2\.png"):
        load(str(folder))


def test_an_empty_class_folder(folder: Path) -> None:
    for file in (folder / "owl").iterdir():
        file.unlink()
    with pytest.raises(ImagesError, match="no images of 1 of 3 classes: owl"):
        load(str(folder))


def test_a_choice_is_balanced_and_the_rest_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["cat"] * 20 + ["dog"] * 5 + ["owl"] * 2
    path = parquet(
        tmp_path / "x.parquet", colored(names), [LABELS.index(n) for n in names], ClassLabel(names=list(LABELS))
    )
    calls: list[str] = []

    def counted(raw: Any, where: str, mode: str) -> Image.Image:
        calls.append(where)
        return decode(raw, where, mode)

    monkeypatch.setattr("phard_hub.images.loading.decode", counted)
    images = load(path, max_images=10)
    assert images.labels.bincount().tolist() == [4, 4, 2]
    assert len(calls) == 10
    check_colors(images)
    assert torch.equal(load(path, max_images=10).pixels, images.pixels)
    with pytest.raises(ImagesError, match="2 images cannot show 3 classes"):
        load(path, max_images=2)


def test_progress_is_told(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    load(str(folder), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)


@pytest.mark.parametrize("dataset", ["/no/such/folder", "no.parquet", "a/b/c", "*.parquet", "with space"])
def test_no_such_data_set(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImagesError, match="neither an existing file or folder nor a Hub id"):
        load(dataset)


@pytest.mark.parametrize("name", ["x.txt", "x.parquet"])
def test_files_that_are_no_parquet(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello")
    with pytest.raises(ImagesError, match=r"no parquet file|cannot be read") as caught:
        load(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="cannot be read as images"):
        load(str(tmp_path))


def test_splits_are_named(folder: Path) -> None:
    with pytest.raises(ImagesError, match="has no split 'dev'; it has train"):
        load(str(folder), split="dev")


@pytest.mark.parametrize("wrong", [{"channels": 2}, {"resample": "box"}])
def test_what_cannot_be_loaded(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ImagesError, match="cannot be loaded"):
        load(str(folder), **wrong)


def test_the_demo_images() -> None:
    train, test = demo_images()
    assert (len(train), len(test)) == (1297, 500)
    assert train.pixels.shape[1:] == (3, 32, 32)
    assert train.pixels.dtype == torch.uint8
    assert train.names == tuple("0123456789")
    assert test.labels.bincount().min() >= 48
    assert torch.equal(demo_images()[1].pixels, test.pixels)


@pytest.mark.data
def test_cifar10_by_name(shared_data: Path) -> None:
    path = str(shared_data / "cifar10_test.parquet")
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    images = load_images(path, labels=names[::-1], image_size=(32, 32), max_images=200)
    assert images.labels.bincount().tolist() == [20] * 10
    assert images.names == tuple(names[::-1])


IMAGENETTE = (
    *("tench", "English springer", "cassette player", "chain saw", "church"),
    *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
)


@pytest.mark.data
def test_photos_of_which_some_are_grey(shared_data: Path) -> None:
    path = str(shared_data / "imagenette224_val_1500.parquet")
    images = load_images(path, labels=IMAGENETTE, image_size=(64, 64), channels=3)
    assert images.pixels.shape == (1500, 3, 64, 64)
    with pytest.raises(ImagesError, match=r"tench.*car, train"):
        load_images(path, labels=["car", "train"], image_size=(64, 64))
