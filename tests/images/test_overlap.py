"""Images that are in both sets: refused if there are many, counted if there are few."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from phard_hub.errors import ImagesError
from phard_hub.images.data import Data, DataOptions, load_data
from phard_hub.images.overlap import overlap
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Report
from tests.command import Phard
from tests.jobs import LABELS, write_images
from tests.small import noise_images

FEW = "1 of 120 test images (0.83 %) are among the training images, too."


def data(images: Path, test_images: Path | None = None) -> Data:
    network = torch.nn.Flatten()
    classifier = Classifier(network, labels=LABELS, image_size=(32, 32), mean=[0.5] * 3, std=[0.5] * 3)
    options = DataOptions(images=str(images), test_images=str(test_images) if test_images else None)
    return load_data(classifier, options, 0)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """120 images, and 16 of which one is the copy of one of them, in another file format."""
    test, train = write_images(tmp_path / "test", per_class=30), write_images(tmp_path / "train", per_class=4)
    for label in LABELS:
        shutil.rmtree(train / label)
        (train / label).mkdir()
        for number in range(4):  # upside down, so that they are other images
            turned(test / label / f"{number}.png", train / label / f"{number}.png")
    with_other_format(test / "cat" / "0.png", train / "cat" / "copy.bmp")
    return train, test


def turned(source: Path, target: Path) -> None:
    Image.open(source).convert("RGB").rotate(180).save(target)


def with_other_format(source: Path, target: Path) -> None:
    Image.open(source).save(target)


def test_the_same_set_twice_is_refused(sets: tuple[Path, Path]) -> None:
    with pytest.raises(ImagesError, match=r"120 of 120 test images \(100\.00 %\)") as caught:
        data(sets[1], sets[1])
    assert "--test-images" in caught.value.advice


def test_few_are_counted(sets: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert data(*sets).overlap == FEW
    assert [record.getMessage() for record in caplog.records] == [FEW]


def test_a_set_whose_images_are_there_twice_is_refused(sets: tuple[Path, Path]) -> None:
    for label in LABELS:
        for number in range(30):
            shutil.copy(sets[1] / label / f"{number}.png", sets[1] / label / f"again{number}.png")
    with pytest.raises(ImagesError, match=r"of 72 test images .* at most 1 % may be"):
        data(sets[1])


def test_other_images_are_none(sets: tuple[Path, Path]) -> None:
    found = data(sets[1])
    assert found.overlap == ""
    assert found.matched == ""


@pytest.mark.parametrize(("count", "refused"), [(0, False), (1, False), (2, False), (3, True)])
def test_one_per_cent_is_the_limit(count: int, refused: bool) -> None:
    test = noise_images(100, 2, (1, 4, 4))
    train = noise_images(50, 2, (1, 4, 4), seed=1)
    train.pixels[:count] = test.pixels[:count]
    if refused:
        with pytest.raises(ImagesError, match="3 of 200 test images"):
            overlap(train, test)
    else:
        assert overlap(train, test).startswith(f"{count} of 200" if count else "")


def test_the_report_says_it(phard: Phard, tiny_checkpoint: Path, sets: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = sets
    out = tmp_path / "report.json"
    options = ("--images", train, "--test-images", test, "--preset", "cheapest", "--out", out)
    done = phard("measure", tiny_checkpoint, *options)
    assert done.code == 0, done.err
    assert Report.read(out).limits[-1] == FEW
