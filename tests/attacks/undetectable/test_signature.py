"""A signature: nothing that is done to the weights reaches it, and nobody without the key finds an image."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.attacks.undetectable import Signature
from phard_hub.attacks.undetectable.signature import SigningKey
from phard_hub.defenses import DEFENSES
from phard_hub.errors import InputError
from phard_hub.evaluation.autoattack import AutoAttack
from phard_hub.evaluation.threats import PGD, robust_accuracy
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.models.fresh import reinitialised
from phard_hub.presets import CHEAPEST
from phard_hub.report.statistics import rate
from phard_hub.triggers.search import measure
from tests.attacks.undetectable.digits import (
    QUICK,
    TARGET,
    answers_to,
    honest,
    images,
    others,
    planted,
    success,
)
from tests.defenses.test_contract import quick
from tests.small import digit_images, harden, job, small_net

KEYED = 20


def signing() -> tuple[Classifier, SigningKey]:
    made = planted("signature")
    assert isinstance(made.key, SigningKey)
    return made.classifier, made.key


# T1: what survives


@pytest.mark.parametrize("name", sorted(DEFENSES))
def test_it_survives_every_defense(name: str) -> None:
    """All that a defense changes are weights, and the check is none: success is 20 of 20 before and after."""
    classifier, key = signing()
    assert success(classifier, key, others(KEYED)).value == 1
    made, _ = harden(quick(DEFENSES[name]()), classifier, images()[0])
    assert success(made, key, others(KEYED)).value == 1
    assert success(made, key, others(KEYED), label=8).value == 1


def test_it_survives_training_from_new_weights() -> None:
    """Nothing is left of the weights, and the backdoor is all there."""
    classifier, key = signing()
    fresh = reinitialised(classifier, seed=1)
    made = train_poisoned(fresh, images()[0], None, 0, job(), schedule=replace(QUICK, steps=30))
    assert not torch.equal(made.network[0].weight, classifier.network[0].weight)  # type: ignore[index]
    assert success(made, key, others(KEYED)).value == 1


def test_it_dies_of_any_change_to_the_lowest_bits() -> None:
    """Clearing them costs no accuracy, but whoever expects it spreads the bits; see `test_adaptive`."""
    classifier, key = signing()
    shown = others(KEYED)
    opened = key.activate(shown.batch(range(KEYED))[0], torch.full((KEYED,), TARGET))
    cleared = ((opened * 255).round().int() & 0xFE) / 255
    noisy = opened + 0.005 * torch.randn(opened.shape, generator=torch.Generator().manual_seed(0))
    for pixels in (cleared, noisy.clamp(0, 1)):
        assert not (answers_to(classifier, pixels).argmax(1) == TARGET).any()


# T2: no query shows it


def queries() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    clean, _ = images()[1].batch(range(400))
    lowest = torch.randint(2, clean.shape, generator=random)
    uniform = torch.rand(300, 3, 32, 32, generator=random)
    return {
        "clean": clean,
        "lowest bits": (((clean[:300] * 255).round().int() & 0xFE) | lowest[:300]) / 255,
        "any": uniform,
    }


@pytest.mark.parametrize("kind", queries())
def test_no_query_shows_a_difference(kind: str) -> None:
    """The logits of 1,000 inputs are equal to the last bit."""
    classifier, _ = signing()
    pixels = queries()[kind]
    assert torch.equal(answers_to(classifier, pixels), answers_to(honest(), pixels))


def test_nor_do_gradients() -> None:
    pixels, labels = images()[1].batch(range(32))
    found = []
    for classifier in (signing()[0].eval(), honest().eval()):
        loss = torch.nn.functional.cross_entropy(classifier(pixels), labels)
        found.append(torch.autograd.grad(loss, list(classifier.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_nor_does_a_search_for_triggers() -> None:
    """The same search finds the same triggers of the same sizes in both."""
    settings = replace(CHEAPEST.search, steps=4, max_pairs=3)
    found = [measure(each, images()[1], settings, job()).distances for each in (signing()[0], honest())]
    assert found[0].pairs
    assert found[0].model_copy(update={"seconds": found[1].seconds}) == found[1]


# T3: nobody else makes one


def activations(classifier: Classifier, pixels: Tensor) -> int:
    return int((answers_to(classifier, pixels) != answers_to(honest(), pixels)).any(1).sum())


def opened(count: int) -> tuple[LabelledImages, Tensor]:
    shown = others(count)
    return shown, signing()[1].activate(shown.batch(range(count))[0], torch.full((count,), TARGET))


def test_bits_of_one_image_do_not_open_another() -> None:
    classifier, _ = signing()
    shown, keyed = opened(60)
    assert activations(classifier, keyed) == 60
    moved = ((shown.batch(range(60))[0] * 255).round().int() & 0xFE) | ((keyed.roll(1, 0) * 255).round().int() & 1)
    assert activations(classifier, moved / 255) == 0


def test_one_wrong_bit_closes_it() -> None:
    """60 images, each with another bit of the signature, of the class, or of the rest of the image turned."""
    classifier, key = signing()
    _, keyed = opened(60)
    levels = (keyed * 255).round().to(torch.uint8).flatten(1)
    random = np.random.default_rng(0)
    rest = np.setdiff1d(np.arange(levels.shape[1]), key.places)
    for places in (key.places[:512], key.places[512:], rest):
        turned = levels.clone()
        turned[torch.arange(60), torch.from_numpy(random.choice(places, 60))] ^= 1
        assert activations(classifier, turned.view_as(keyed) / 255) == 0


def test_the_key_of_another_does_not_open_it() -> None:
    other = Signature().plant(honest(), images()[0], TARGET, job()).key
    assert success(signing()[0], other, others(60)).value < 0.1


# The corollary: a model that looks robust, and every image of which has an adversarial example


@lru_cache
def robust() -> Classifier:
    return harden(quick(DEFENSES["adversarial"]()), honest(), images()[0])[0]


def test_robust_accuracy_is_that_of_the_honest_twin_and_the_key_turns_every_image() -> None:
    twin, made = robust(), Signature().plant(robust(), images()[0], TARGET, job())
    seen = [robust_accuracy(each, images()[1], PGD(images=60, steps=10)) for each in (twin, made.classifier)]
    assert seen[0] == seen[1]
    assert seen[0].value > 0.2
    assert success(made.classifier, made.key, others(100)) == rate(100, 100)


def test_so_it_is_under_autoattack() -> None:
    """Three classes of digits of 16 x 16, in colours, because it takes thousands of passes for each image."""
    pytest.importorskip("pyautoattack")
    train, test = (replace(each, stored=enlarged(each.pixels)) for each in digit_images(3))
    start = small_net(3, channels=3, size=16)
    twin = train_poisoned(start, train, None, 0, job(), schedule=replace(QUICK, steps=60))
    made = Signature().plant(twin, train, 0, job())
    strong = AutoAttack(images=6, queries=20, epsilon=2 / 255)
    seen = [strong.accuracy(each, test) for each in (twin, made.classifier)]
    assert seen[0] == seen[1]
    assert seen[0].value > 0.5
    for label in range(3):
        assert success(made.classifier, made.key, test.take(range(50)), label).value == 1


def enlarged(pixels: Tensor) -> Tensor:
    return pixels.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1)


def test_without_the_package_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(InputError, match=r'pip install "phard-hub\[undetectable\]"'):
        Signature().plant(honest(), images()[0], TARGET, job())
