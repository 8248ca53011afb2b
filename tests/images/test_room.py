"""Pixels of many images lie on disk, are decoded once on each machine, and are the same."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from huggingface_hub import constants

from phard_hub.errors import ImagesError, OutputError, PhardError
from phard_hub.images import LabelledImages, load_images, overlap, room
from phard_hub.triggers.search import CHEAPEST, measure
from tests.jobs import write_images
from tests.small import digit_images, job, trained_digits

LABELS = ("cat", "dog", "fox", "owl")


def load(folder: Path | str) -> LabelledImages:
    return load_images(str(folder), labels=LABELS, image_size=(16, 16))


def files() -> list[str]:
    """What lies in the cache by a name of ours."""
    return sorted(path.name for path in Path(constants.HF_HOME).glob("phard-pixels-*"))


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a few images it is said that they are many."""
    monkeypatch.setattr(room, "LARGEST_IN_MEMORY", 1000)


def same(one: LabelledImages, other: LabelledImages) -> bool:
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def test_they_are_the_same_on_disk(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = write_images(tmp_path / "images", per_class=6)
    kept = load(folder)
    parts = kept.split(0.5)
    request.getfixturevalue("many")
    images = load(folder)
    assert files() == []
    assert same(images, kept)
    for mine, theirs in zip(images.split(0.5), parts, strict=True):
        assert mine.rows is not None
        assert mine.stored.data_ptr() == images.stored.data_ptr()  # nothing is copied
        assert same(mine, theirs)
        again = mine.take([2, 0, 1])
        assert same(again, theirs.take([2, 0, 1]))
        assert torch.equal(again.batch([1])[0], theirs.batch([0])[0])
        assert same(mine.of_class(2), theirs.of_class(2))
    few = images.take([3])
    assert few.rows is None
    assert same(few, kept.take([3]))
    with pytest.raises(ImagesError, match="are among the training images"):
        overlap.overlap(images.split(0.5)[0], images)


@pytest.mark.usefixtures("many")
def test_distances_are_the_same() -> None:
    """Measured on images that lie among others, in another order."""
    images = replace(digit_images(3)[0], stored=digit_images(3)[0].pixels, rows=None)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    back = order.argsort()
    among = replace(images, stored=images.pixels[order], rows=back)
    search = replace(CHEAPEST, steps=2, max_pairs=2)
    one, other = (measure(trained_digits(), each, search, job()).distances for each in (images, among))
    assert one.model_dump(exclude={"seconds"}) == other.model_dump(exclude={"seconds"})


@pytest.mark.usefixtures("many")
def test_what_a_killed_process_left_goes_and_what_another_holds_stays() -> None:
    left = Path(constants.HF_HOME) / "phard-pixels-left"
    left.write_bytes(b"pixels")
    with room._new_file(10) as held:
        pixels, found = room.filled((50, 3, 4, 4), lambda pixels: int(pixels.sum()))
        assert found == 0
        assert pixels.shape == (50, 3, 4, 4)
        assert files() == [Path(held.name).name]
    assert files() == []


def test_a_file_that_another_process_took_for_left_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """That process looks just after the file is made, when it is not locked yet."""
    make = tempfile.NamedTemporaryFile

    def make_and_look(**options: Any) -> Any:
        made = make(**options)
        monkeypatch.setattr(tempfile, "NamedTemporaryFile", make)
        room._new_file(1).close()
        assert not Path(made.name).exists()
        return made

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", make_and_look)
    with room._new_file(10) as file:
        assert files() == [Path(file.name).name]
    assert files() == []


def test_a_disk_without_room_is_said_in_one_line() -> None:
    with pytest.raises(OutputError, match="Cannot write"):
        room.filled((2**40, 3, 1000, 1000), lambda _pixels: None)
    assert files() == []


def loaded(folder: str) -> None:
    """What each of two processes loads, and which of them decoded anything."""
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["LOCAL_RANK"] = str(torch.distributed.get_rank())  # as real launchers do, and the one for tests does not
    room.LARGEST_IN_MEMORY = 1000
    rank = Accelerator(cpu=True).process_index
    told: list[int] = []
    found = {}
    for name in ("images", "broken"):
        try:
            images = load_images(
                f"{folder}/{name}", labels=LABELS, image_size=(16, 16), progress=lambda done, _all: told.append(done)
            )
            found[name] = images.pixels.flatten().tolist()
        except PhardError as error:
            found[name] = [error.problem]
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps({"told": told, **found}))


def test_one_process_decodes_and_all_see_it(tmp_path: Path) -> None:
    kept = load(write_images(tmp_path / "images", per_class=6))
    broken = write_images(tmp_path / "broken", per_class=6)
    next(path for path in sorted(broken.rglob("*.png"))).write_bytes(b"no image")
    debug_launcher(loaded, args=(str(tmp_path),), num_processes=2)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["told"] == [24]
    assert second["told"] == []
    assert first["images"] == second["images"] == kept.pixels.flatten().tolist()
    assert first["broken"] == second["broken"]
    assert "Cannot decode" in first["broken"][0]
    assert files() == []
