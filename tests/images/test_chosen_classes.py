"""Some of the model's classes: an image set that shows ten of a thousand can be measured and hardened on, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages, load_images
from phard_hub.images.matching import chosen_classes
from phard_hub.report.record import Report
from phard_hub.report.views.plots import distance_maps
from tests.border.strangers import check_line
from tests.command import Phard
from tests.images.test_matching import folders
from tests.jobs import write_images

ANIMALS = ("tench, Tinca tinca", "goldfish", "great white shark, white shark", "cock")

CHOICES: dict[str, tuple[str | Sequence[str], tuple[int, ...]]] = {
    "two": ("goldfish,cock", (1, 3)),
    "spaces and case": (" Cock , GOLDFISH", (1, 3)),
    "names with commas": ("great white shark, white shark,tench, Tinca tinca", (0, 2)),
    "a list": (["cock", "tench, Tinca tinca"], (0, 3)),
    "one twice": ("cock,goldfish,cock", (1, 3)),
}


@pytest.mark.parametrize(("given", "found"), CHOICES.values(), ids=CHOICES)
def test_classes_are_chosen_by_name(given: str | Sequence[str], found: tuple[int, ...]) -> None:
    assert chosen_classes(given, ANIMALS) == found


@pytest.mark.parametrize(
    ("given", "words"),
    [("cock,hen", "no class 'hen'"), ("cock", "Fewer than 2"), ("", "no class ''"), ("goldfisch,cock", "'goldfisch'")],
)
def test_a_wrong_choice_is_refused(given: str, words: str) -> None:
    with pytest.raises(ImagesError, match=words) as caught:
        chosen_classes(given, ANIMALS)
    assert caught.value.advice
    check_line(str(caught.value))


def load(top: Path, names: Sequence[str], *, chosen: Sequence[int] = (), only_present: bool = False) -> LabelledImages:
    labels = ("cat", "dog", "owl", "fox")
    place = folders(top, names)
    return load_images(place, labels=labels, image_size=(4, 4), channels=1, chosen=chosen, only_present=only_present)


def test_images_of_other_classes_are_left_out(tmp_path: Path) -> None:
    images = load(tmp_path, ("cat", "dog", "fox", "cow"), chosen=(0, 3))
    assert images.labels.tolist() == [0, 3]
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 2]
    assert images.classes == (0, 3)
    assert images.names == ("cat", "dog", "owl", "fox")


def test_the_classes_that_are_there(tmp_path: Path) -> None:
    images = load(tmp_path, ("dog", "fox"), only_present=True)
    assert images.classes == images.take([0]).classes == (1, 3)
    with pytest.raises(ImagesError, match="are not the model's: cow"):
        load(tmp_path / "more", ("dog", "cow"), only_present=True)
    with pytest.raises(ImagesError, match="dog is the only class"):
        load(tmp_path / "one", ("dog",), only_present=True)
    with pytest.raises(ImagesError, match="no images of 1 of 3 classes: owl"):
        load(tmp_path / "others", ("dog", "cat"), chosen=(0, 1, 2))


def test_the_whole_job_between_some_classes(phard: Phard, tiny_checkpoint: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", ("cat", "dog", "fox"), per_class=24)
    job = ("harden", tiny_checkpoint, "--images", images, "--preset", "cheapest", "--even-at-chance")
    refused = phard(*job, "--out", tmp_path / "none")
    assert refused.code == 2
    assert "no images of 1 of 4 classes: owl" in refused.complaint
    assert "--only-present-classes" in refused.complaint
    for options, classes in ((("--only-present-classes",), (0, 1, 3)), (("--classes", "cat,fox"), (0, 3))):
        out = tmp_path / str(len(classes))
        assert phard(*job, "--out", out, *options).code in (0, 1, 3)
        report = Report.read(out)
        assert report.after is not None
        for state in (report.before, report.after):
            assert state.distances.classes == classes
            assert {pair.source for pair in state.distances.pairs} == set(classes)
            assert [pair.target for pair in state.distances.universal] == (list(classes) if len(classes) > 2 else [])
        assert any(f"{len(classes)} of the model's 4 classes" in limit for limit in report.limits)
        distance_maps(report)
