"""Data sets on a Hub, by id: found by type, matched by name, and large ones read in part."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from phard_hub.errors import HubUnavailableError, ImagesError, OutputError
from phard_hub.images import LabelledImages, load_images, sources
from tests.hub_server import Hub
from tests.release.test_release import small_files

LABELS = ("Golden Retriever", "tabby-cat", "snowy_owl")
DATA = "org/data"
pytestmark = pytest.mark.usefixtures("brief_waits")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set counts as large."""
    monkeypatch.setattr(sources, "LARGE", 0)


def picture(k: int, seed: int = 0) -> Image.Image:
    """Noise, but for one channel that is full: the class."""
    pixels = np.random.default_rng(seed).integers(0, 200, (24, 24, 3), dtype=np.uint8)
    pixels[..., k] = 255
    return Image.fromarray(pixels)


def rows(numbers: list[int], names: tuple[str, ...] = ("golden_retriever", "TABBY CAT", "snowy owl")) -> Dataset:
    """One image for each class number, in this order; columns and classes named in their own way."""
    features = Features({"id": Value("int64"), "photo": ImageFeature(), "kind": ClassLabel(names=list(names))})
    photos = [picture(k, seed) for seed, k in enumerate(numbers)]
    content = {"id": list(range(len(numbers))), "photo": photos, "kind": numbers}
    return Dataset.from_dict(content, features=features)


def load(dataset: str, **arguments: Any) -> LabelledImages:
    return load_images(dataset, **{"labels": LABELS, "image_size": (24, 24), "channels": 3, **arguments})


def check_classes(images: LabelledImages) -> None:
    full = (images.pixels == 255).flatten(2).all(dim=2)
    assert torch.equal(full, torch.nn.functional.one_hot(images.labels, 3).bool())


def publish(hub: Hub, data: Dataset, *arguments: Any, **options: Any) -> None:
    """Push as its owner, and log out."""
    hub.login(user="org")
    data.push_to_hub(DATA, *arguments, **options)
    hub.logout()


def bytes_sent(hub: Hub) -> int:
    return sum(request.sent for request in hub.log)


# --- by id ---------------------------------------------------------------------------------------------------


def test_classes_are_found_by_type_and_matched_by_name(hub: Hub) -> None:
    publish(hub, rows([2, 0, 1] * 4), split="train")
    images = load(DATA)
    assert images.labels.tolist() == [2, 0, 1] * 4
    assert images.names == LABELS
    check_classes(images)
    assert images.source == f"org/data@{hub.head(DATA, kind='datasets')[:12]} (train), 12 of 12 images"
    assert not hub.leaks()


def test_of_several_kinds_of_classes_those_of_the_model_are_meant(hub: Hub) -> None:
    kinds = {"img": ImageFeature(), "coarse": ClassLabel(names=["a", "b"]), "fine": ClassLabel(names=list(LABELS))}
    content = {"img": [picture(k) for k in range(3)], "coarse": [0, 1, 0], "fine": [0, 1, 2]}
    publish(hub, Dataset.from_dict(content, features=Features(kinds)))
    assert load(DATA).labels.tolist() == [0, 1, 2]


def test_classes_that_do_not_match_are_listed(hub: Hub) -> None:
    publish(hub, rows([0, 1, 2], names=("golden retriver", "zebra", "snowy owl")))
    with pytest.raises(ImagesError) as caught:
        load(DATA)
    assert str(caught.value) == (
        "2 of the data set's 3 classes are not the model's: golden retriver, zebra. "
        "The model's that the data set does not have: Golden Retriever, tabby-cat. "
        "Rename the classes to match, first 'golden retriver' (to 'Golden Retriever'?), say what means what with "
        "--labels FILE, or choose another data set."
    )


def test_configurations_and_revisions_are_part_of_the_name(hub: Hub) -> None:
    publish(hub, rows([0, 1, 2]))
    publish(hub, rows([0, 1, 2] * 2), "double")
    hub.tag(DATA, "v1", kind="datasets")
    publish(hub, rows([0, 1, 2] * 3), "double")
    assert [len(load(name)) for name in (DATA, f"{DATA}:double", f"{DATA}:double@v1")] == [3, 9, 6]
    first = hub.store.repos["datasets", DATA].refs["refs/tags/v1"]
    assert load(f"{DATA}:double@v1").source.startswith(f"org/data:double@{first[:12]} (train)")
    with pytest.raises(ImagesError, match=r"BuilderConfig 'triple' not found. Available: \['default', 'double'\]"):
        load(f"{DATA}:triple")


def test_several_configurations_without_a_default(hub: Hub) -> None:
    publish(hub, rows([0, 1, 2]), "small")
    publish(hub, rows([0, 1, 2]), "other")
    with pytest.raises(ImagesError) as caught:
        load(DATA)
    assert str(caught.value).startswith("org/data has several configurations: ")
    assert {"small", "other"} == set(re.findall("small|other", caught.value.problem))
    assert caught.value.advice == "Name one of them as org/data:NAME."
    assert len(load(f"{DATA}:small")) == 3


def test_splits(hub: Hub) -> None:
    publish(hub, rows([0, 1, 2]), split="validation")
    publish(hub, rows([0, 1, 2] * 2), split="test")
    assert len(load(DATA, split="test")) == 6
    with pytest.raises(ImagesError, match="org/data has several splits; it has validation, test"):
        load(DATA)


def make_folder(place: Path, counts: tuple[int, int, int]) -> Path:
    for k, count in enumerate(counts):
        (place / "train" / LABELS[k]).mkdir(parents=True)
        for seed in range(count):
            picture(k, seed).save(place / "train" / LABELS[k] / f"{seed}.png")
    return place


def test_a_folder_of_images(hub: Hub, tmp_path: Path) -> None:
    hub.create(DATA, make_folder(tmp_path, (4, 5, 6)), kind="datasets")
    images = load(DATA)
    assert images.labels.bincount().tolist() == [4, 5, 6]
    check_classes(images)


# --- large ones ----------------------------------------------------------------------------------------------


def parquet(place: Path, numbers: list[int], files: int, group: int) -> dict[str, bytes]:
    """Parquet files with row groups of this size."""
    data, found = rows(numbers), {}
    for k in range(files):
        data.shard(files, k, contiguous=True).to_parquet(str(place / "x.parquet"), batch_size=group)
        found[f"data/train-{k:05}-of-{files:05}.parquet"] = (place / "x.parquet").read_bytes()
    return found


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_of_large_parquet_few_row_groups_are_read(hub: Hub, tmp_path: Path, order: str) -> None:
    numbers = [k for k in range(3) for _ in range(400)] if order == "sorted" else [0, 1, 2] * 400
    hub.create(DATA, parquet(tmp_path, numbers, files=4, group=20), kind="datasets")
    images = load(DATA, max_images=30)
    assert images.labels.bincount().tolist() == [10, 10, 10]
    check_classes(images)
    head = hub.head(DATA, kind="datasets")[:12]
    read = 60 if order == "sorted" else 40
    assert images.source == f"org/data@{head} (train), 30 of 1200 images, {read} read"
    whole = sum(map(len, hub.files(DATA, kind="datasets").values()))
    assert bytes_sent(hub) < whole / 2
    again = load(DATA, max_images=30)
    assert torch.equal(images.pixels, again.pixels)
    assert not torch.equal(images.pixels, load(DATA, max_images=30, seed=1).pixels)


@pytest.mark.usefixtures("large")
def test_rare_classes_are_found_in_large_parquet(hub: Hub, tmp_path: Path) -> None:
    numbers = [0] * 300 + [1] * 300 + [2] * 3
    hub.create(DATA, parquet(tmp_path, numbers, files=3, group=10), kind="datasets")
    images = load(DATA, max_images=30)
    assert images.labels.bincount().tolist()[2] == 3
    assert len(images) == 30
    check_classes(images)


@pytest.mark.usefixtures("large")
def test_what_datasets_pushes_is_read_in_part(hub: Hub) -> None:
    publish(hub, rows([0, 1, 2] * 200), num_shards=3)
    images = load(DATA, max_images=9)
    assert images.labels.bincount().tolist() == [3, 3, 3]
    check_classes(images)


@pytest.mark.usefixtures("large")
def test_large_local_parquet(tmp_path: Path) -> None:
    numbers = [k for k in range(3) for _ in range(100)]
    (tmp_path / "data").mkdir()
    for name, content in parquet(tmp_path, numbers, files=2, group=20).items():
        (tmp_path / name).write_bytes(content)
    images = load(str(tmp_path / "data"), max_images=6)
    assert images.labels.bincount().tolist() == [2, 2, 2]
    check_classes(images)
    assert images.source.endswith("data (train), 6 of 300 images, 60 read")


@pytest.mark.usefixtures("large")
def test_without_a_limit_a_large_data_set_is_loaded_whole(hub: Hub, tmp_path: Path) -> None:
    hub.create(DATA, parquet(tmp_path, [0, 1, 2] * 40, files=2, group=20), kind="datasets")
    assert len(load(DATA)) == 120


@pytest.mark.usefixtures("large")
def test_of_a_large_folder_only_chosen_files_are_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.create(DATA, make_folder(tmp_path, (30, 40, 50)), kind="datasets")
    images = load(DATA, max_images=12)
    assert images.labels.bincount().tolist() == [4, 4, 4]
    check_classes(images)
    fetched = {request.path for request in hub.asked("download", "GET") if request.path.endswith(".png")}
    assert len(fetched) == 12
    assert "12 of the first 84 images" in images.source  # the last class starts after the 80 of the first two


@pytest.mark.usefixtures("large")
def test_other_large_formats_are_streamed_until_there_are_enough(hub: Hub) -> None:
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as archive:
        for seed, k in enumerate([0, 1, 2] * 300):
            image = io.BytesIO()
            picture(k, seed).save(image, "PNG")
            for suffix, content in (("png", image.getvalue()), ("cls", str(k).encode())):
                entry = tarfile.TarInfo(f"{seed:05}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    hub.create(DATA, {"train-00000.tar": shard.getvalue()}, kind="datasets")
    images = load(DATA, max_images=12, label_column="cls")
    assert images.labels.tolist() == [0, 1, 2] * 4
    check_classes(images)
    assert "12 of the first 12 images" in images.source


# --- trouble -------------------------------------------------------------------------------------------------


def test_private_and_gated_data(hub: Hub) -> None:
    publish(hub, rows([0, 1, 2]))
    for change in ({"private": True}, {"private": False, "gated": "auto"}):
        vars(hub.store.repos["datasets", DATA]).update(change)
        with pytest.raises(ImagesError, match="There is no file, folder or Hub data set org/data"):
            load(DATA)
    hub.accept(DATA, kind="datasets")
    hub.login("read")
    assert len(load(DATA)) == 3
    assert not hub.leaks()


def test_the_hub_is_down(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    with hub.down(), pytest.raises(HubUnavailableError) as caught:
        load(DATA)
    assert "\n" not in str(caught.value)
    publish(hub, rows([0, 1, 2]))
    before = load(DATA)
    with hub.down():
        images = load(DATA)
        with pytest.raises(HubUnavailableError, match="does not tell 'main' of org/data from others"):
            load(f"{DATA}@main")
    assert torch.equal(images.pixels, before.pixels)
    assert images.source == "org/data (train, from the cache), 3 of 3 images"
    assert "using org/data from the cache" in caplog.text


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("fault", [{"status": 503}, {"drop_after": 0}, {"drop_after": 100}])
def test_reading_in_part_survives_a_fault(hub: Hub, tmp_path: Path, fault: dict[str, Any]) -> None:
    hub.create(DATA, parquet(tmp_path, [0, 1, 2] * 100, files=2, group=20), kind="datasets")
    hub.fail("download", skip=3, **fault)
    images = load(DATA, max_images=6)
    check_classes(images)
    assert hub.faults[0].times == 0


@pytest.mark.usefixtures("large")
def test_the_hub_goes_down_while_it_is_read(hub: Hub, tmp_path: Path) -> None:
    hub.create(DATA, parquet(tmp_path, [0, 1, 2] * 100, files=2, group=20), kind="datasets")
    hub.fail("download", status=503, times=None, skip=5)
    with pytest.raises(HubUnavailableError, match="The Hub did not give org/data") as caught:
        load(DATA, max_images=6)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streamed", [False, True])
def test_broken_parquet(hub: Hub, tmp_path: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    files = parquet(tmp_path, [0, 1, 2], files=1, group=20)
    name, content = files.popitem()
    hub.create(DATA, {name: content[:-20]}, kind="datasets")
    monkeypatch.setattr(sources, "LARGE", 0 if streamed else 2**30)
    with pytest.raises(ImagesError, match="org/data cannot be read as images") as caught:
        load(DATA, max_images=3)
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_full(hub: Hub, tmp_path: Path) -> None:
    hub.create(DATA, parquet(tmp_path, [0, 1, 2] * 100, files=1, group=20), kind="datasets")
    with small_files(), pytest.raises(OutputError, match="File too large"):
        load(DATA)
