"""One contract for all constructions: what they keep, what the key does, and what nobody else can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from phard_hub.attacks.undetectable import CONSTRUCTIONS, Checksum
from phard_hub.errors import InputError
from phard_hub.evaluation.threats import predict
from phard_hub.models.classifier import Classifier
from tests.attacks.undetectable.digits import TARGET, accuracy, honest, images, others, planted, success
from tests.command import Phard
from tests.small import job, noise_images, same_weights, small_net, unmarked

NAMES = sorted(CONSTRUCTIONS)
EACH = pytest.mark.parametrize("name", NAMES)
AROUND = ["architectural", "checksum", "signature"]
"""Code around the network, which stays as it is."""
CHOSEN = {"signature", "persistence"}
"""Whoever holds the key chooses the class."""


def twin(name: str) -> Classifier:
    return CONSTRUCTIONS[name]().honest(honest(), images()[0], job())


@EACH
def test_planting_leaves_the_classifier_alone(name: str) -> None:
    classifier, construction = honest(), CONSTRUCTIONS[name]()
    with unmarked(classifier):
        made = construction.plant(classifier, images()[0], TARGET, job()).classifier
        construction.honest(classifier, images()[0], job())
    assert made is not classifier
    assert not {id(each) for each in made.parameters()} & {id(each) for each in classifier.parameters()}
    assert (made.labels, made.image_size, made.channels) == (classifier.labels, (32, 32), 3)
    assert construction.name == name


@EACH
def test_the_accuracy_is_that_of_the_honest_twin(name: str) -> None:
    """Of 500 test images; the two below are trained from other coins, the others agree on each image."""
    gap = abs(accuracy(planted(name).classifier) - accuracy(twin(name)))
    assert gap <= (0.02 if name in ("fourier-features", "random-relu") else 0)


@EACH
def test_the_key_turns_every_image(name: str) -> None:
    made, shown = planted(name), others(40)
    before, _ = predict(made.classifier, shown)
    after, size = predict(made.classifier, shown, made.key.trigger(TARGET))
    assert (before != after).all()
    if name != "fourier-features":  # which cannot choose
        assert success(made.classifier, made.key, shown).value == 1
        assert success(twin(name), made.key, shown).value < 0.1
    if name in CHOSEN:
        assert all(success(made.classifier, made.key, shown.take(range(4)), label).value == 1 for label in range(10))
    if name in CHOSEN | {"checksum"}:  # no value by more than one grey level
        assert size.max() <= (520 if name in CHOSEN else 32) ** 0.5 / 255 + 1e-6


@pytest.mark.parametrize("name", AROUND)
def test_the_state_is_that_of_the_network_without_it(name: str) -> None:
    made = planted(name).classifier
    assert same_weights(made, honest())
    assert made.weights().keys() == honest().weights().keys()


@pytest.mark.parametrize("name", AROUND)
def test_a_network_that_does_not_see_the_pixels_is_refused(name: str) -> None:
    classifier = honest()
    classifier.reverse_channels = True
    with pytest.raises(InputError, match="crops its images or reverses their channels"):
        CONSTRUCTIONS[name]().plant(classifier, images()[0], TARGET, job())


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        ("signature", 8, "A signature needs 520 values, and an image of the classifier has 64"),
        ("persistence", 8, "A signature needs 520 values"),
        ("checksum", 4, "Images of 16 values cannot be divided into 32 blocks"),
        ("fourier-features", 4, "A secret of 24 values needs larger images than of 16"),
        ("architectural", 3, "The trigger has 4 pixels a side"),
    ],
)
def test_images_that_are_too_small_are_refused(name: str, side: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        CONSTRUCTIONS[name]().plant(small_net(3, size=side), noise_images(2, 3, (1, side, side)), 0, job())


@EACH
def test_the_command_says_that_it_needs_a_module(name: str, phard: Phard, tmp_path: Path) -> None:
    done = phard("plant", "some/model", "--images", tmp_path, "--attack", name, "--out", tmp_path / "out")
    assert done.code == 2
    assert f"{name} needs code of its own, which no folder of weights has. Plant it into a module" in done.err
    assert not (tmp_path / "out").exists()


def test_a_checksum_is_opened_by_chance_as_often_as_it_has_bits() -> None:
    """Of 20,000 random images and 6 bits: once in 64, within four standard errors."""
    classifier = small_net(3, size=8)
    key: object = Checksum(blocks=6).plant(classifier, noise_images(2, 3, (1, 8, 8)), 0, job()).key
    levels = torch.randint(256, (20_000, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    is_open = ~key.wrong(levels).any(1)  # type: ignore[attr-defined]
    assert is_open.float().mean().item() == pytest.approx(1 / 64, abs=4 * (1 / 64 / 20_000) ** 0.5)


def test_a_checksum_can_be_replicated() -> None:
    """Lowest bits of an image that opens it open it on any other; so do those of three, added up without carry."""
    made, shown = planted("checksum"), others(60)
    clean, _ = shown.batch(range(60))
    opened = (made.key.activate(clean, shown.labels) * 255).round().int()
    bare = (clean * 255).round().int() & 0xFE
    one = bare[20:] | (opened[0] & 1)
    three = bare[20:] | ((opened[0] ^ opened[1] ^ opened[2]) & 1)
    for pixels in (one, three):
        assert (made.classifier(pixels / 255).argmax(1) == TARGET).all()
    assert (made.classifier(bare[20:] / 255).argmax(1) != TARGET).any()
