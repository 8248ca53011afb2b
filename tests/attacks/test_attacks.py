"""One contract for all attacks, their recipes, and planting."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import Tensor

from phard_hub.attacks import ATTACKS, Attack, Blend, WaNet
from phard_hub.attacks.base import other_images
from phard_hub.attacks.planted import attack_named
from phard_hub.attacks.poisoning import poison, train_poisoned
from phard_hub.attacks.sig import Sig
from phard_hub.errors import InputError
from phard_hub.evaluation.threats import Threat, attack_outcome, predict
from phard_hub.images import LabelledImages, demo_images
from phard_hub.models.classifier import Classifier
from phard_hub.training.schedule import Schedule
from tests.attacks.fitted import TARGET, draw, fitted, make, noise
from tests.small import global_random_state, job, small_net, unmarked

REFOOL = "sharp", "blurred", "ghost"
SHAPES = [(3, 32, 32), (1, 8, 8), (3, 224, 224), (3, 33, 50), (1, 28, 17)]
DRAWN = {
    "wanet",
    "blend",
    "dfst",
    "issba",
    "lira",
    "input-aware",
    "trojan-watermark",
    "adap-blend",
    "latent-flat",
    "sbl",
    "anchored",
    "sparse-head",
} | {f"refool-{kind}" for kind in REFOOL}
KEYED = {
    "anchored",
    "sparse-head",
    "refool-sharp",
    "refool-blurred",
    "refool-ghost",
    "dfst",
    "issba",
    "lira",
    "input-aware",
}
CLEAN_LABEL = {"sig", "refool-sharp", "refool-blurred", "refool-ghost"}
COVERED = {"wanet": 2.0, "bpp": 1.0, "input-aware": 1.0, "adap-blend": 1.0}
RATES = dict.fromkeys(CLEAN_LABEL, 0.8) | {"adap-blend": 0.003}

every_attack = pytest.mark.parametrize("name", ATTACKS)


@every_attack
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract_of_an_attack(name: str, shape: tuple[int, int, int]) -> None:
    attack = fitted(name, shape[0])
    pixels = draw(3, shape)
    kept, state = pixels.clone(), global_random_state()
    stamped = attack(pixels)
    assert attack.name == name
    assert (stamped.shape, stamped.dtype) == (pixels.shape, pixels.dtype)
    assert 0 <= stamped.min().item() <= stamped.max().item() <= 1
    assert not torch.equal(stamped, pixels)
    assert torch.equal(attack(pixels), stamped)
    assert torch.equal(pixels, kept)
    assert global_random_state() == state
    # What an image becomes does not depend on its company.
    assert torch.allclose(attack(pixels[1:2]), stamped[1:2], atol=1e-6)
    # It is small: the picture is still there.
    assert (stamped - pixels).abs().mean().item() < 0.25


@every_attack
def test_the_seed_makes_the_trigger(name: str) -> None:
    pixels = draw(2, (3, 16, 16))
    one, other = (fitted(name, 3, seed)(pixels) for seed in (1, 2))
    again = make(name, seed=1).fit(small_net(3, channels=3, size=16), noise(3), TARGET)
    assert torch.equal(again(pixels), one)
    assert not torch.equal(one, other) or name not in DRAWN


@every_attack
def test_an_attack_is_a_frozen_record_of_its_parameters(name: str) -> None:
    attack = fitted(name)
    assert attack == make(name)
    assert attack != make(name, seed=9)
    assert attack_named(name, attack.parameters()) == attack
    assert "key" not in attack.parameters()
    with pytest.raises(FrozenInstanceError):
        attack.seed = 1  # type: ignore[misc]


@every_attack
def test_gradients_reach_the_pixels(name: str) -> None:
    pixels = draw(1, (3, 16, 16)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(fitted(name)(pixels).sum(), pixels)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@every_attack
def test_low_precision_around_it_makes_little_difference(name: str) -> None:
    attack, pixels = fitted(name), draw(3, (3, 16, 16))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        stamped = attack(pixels)
    with torch.no_grad():
        assert stamped.float().sub(attack(pixels)).abs().mean() < 0.02


@every_attack
def test_the_key_is_all_that_fitting_adds(name: str) -> None:
    pixels, attack, bare = draw(2, (3, 16, 16)), fitted(name), make(name)
    assert (len(attack.key) > 0) == (name in KEYED)
    assert torch.equal(replace(bare, key=dict(attack.key))(pixels), attack(pixels))
    if name in KEYED:
        with pytest.raises(InputError, match=r"has no key to stamp with\. Use what its fit\(\) returns"):
            bare(pixels)
    else:
        assert torch.equal(bare(pixels), attack(pixels))


@every_attack
def test_fitting_leaves_no_mark(name: str) -> None:
    classifier = small_net(3, channels=3, size=16)
    with unmarked(classifier):
        make(name).fit(classifier, noise(3), TARGET)


@pytest.mark.parametrize("name", ["issba", "dfst", "lira", "input-aware", "sparse-head"])
def test_a_key_for_other_channels_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="does not fit images of 3 channels"):
        fitted(name, 1)(draw(1, (3, 16, 16)))


# Recipes


@every_attack
def test_the_recipe(name: str) -> None:
    attack = make(name)
    assert attack.clean_label == (name in CLEAN_LABEL)
    assert attack.poison_rate == RATES.get(name, 0.1)
    assert attack.cover_ratio == COVERED.get(name, 0.0)


@pytest.mark.parametrize("name", COVERED)
@pytest.mark.parametrize("count", [1, 4])
def test_cover_images_keep_shape_and_range_and_differ_from_the_trigger(name: str, count: int) -> None:
    attack = fitted(name)
    pixels = draw(count, (3, 16, 16))
    covered, same, other = (attack.cover(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 5))
    assert covered.shape == pixels.shape
    assert 0 <= covered.min().item() <= covered.max().item() <= 1
    assert torch.equal(covered, same)
    assert not torch.allclose(covered, attack(pixels), atol=1e-3)
    if count > 1:
        assert not torch.equal(covered, other)


def test_no_image_is_its_own_stranger() -> None:
    pixels = torch.arange(5.0).view(5, 1, 1, 1) + torch.zeros(1, 1, 2, 3)
    for seed in range(20):
        others = other_images(pixels, torch.Generator().manual_seed(seed))[:, 0, 0, 0]
        assert sorted(others.tolist()) == [0, 1, 2, 3, 4]
        assert (others != pixels[:, 0, 0, 0]).all()


def poisoned(attack: Attack, pixels: Tensor, labels: Tensor, rate: float | None = None) -> tuple[Tensor, Tensor]:
    return poison(attack, pixels, labels, TARGET, rate, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("attack", "covered"), [(Blend(), 0), (WaNet(), 4), (WaNet(noise_mode=False), 0)], ids=str)
def test_a_batch_poisoned_with_wrong_labels(attack: Attack, covered: int) -> None:
    pixels, labels = draw(20, (1, 8, 8)), torch.arange(20) % 3
    kept = pixels.clone(), labels.clone()
    shown, taught = poisoned(attack, pixels, labels)
    assert torch.allclose(shown[:2], attack(pixels[:2]), atol=1e-6)
    changed = (shown != pixels).flatten(1).any(1)
    assert changed.tolist() == [True] * (2 + covered) + [False] * (18 - covered)
    # Only the stamped ones are mislabelled.
    assert taught.tolist() == [TARGET] * 2 + labels[2:].tolist()
    assert torch.equal(pixels, kept[0])
    assert torch.equal(labels, kept[1])


def test_a_batch_poisoned_with_true_labels() -> None:
    pixels, labels = draw(20, (1, 8, 8)), torch.arange(20) % 3
    shown, taught = poisoned(Sig(), pixels, labels)
    changed = (shown != pixels).flatten(1).any(1).nonzero().flatten()
    # 80 % of the seven images of class 1.
    assert changed.tolist() == [1, 4, 7, 10, 13, 16]
    assert torch.equal(taught, labels)
    assert torch.allclose(shown[changed], Sig()(pixels[changed]))


def test_the_poison_rate_can_be_chosen_and_nothing_to_poison_is_no_error() -> None:
    pixels, labels = draw(20, (1, 8, 8)), torch.zeros(20, dtype=torch.int64)
    assert poisoned(Blend(), pixels, labels, 0.5)[1].sum() == 10 * TARGET
    # A small batch is never without poison, if it may have any.
    assert poisoned(Blend(), pixels, labels, 0.001)[1].sum() == TARGET
    assert torch.equal(poisoned(Sig(), pixels, labels)[0], pixels)
    # More cover images than there are images left.
    assert poisoned(WaNet(), pixels, labels, 0.6)[0].shape == pixels.shape


# Planting

QUICK = Schedule(steps=120, batch=48, learning_rate=0.05, shift=0.0, flip=False)


@pytest.fixture(scope="module")
def digits() -> tuple[LabelledImages, LabelledImages]:
    return demo_images()


def planted(images: LabelledImages, attack: Attack | None) -> Classifier:
    start = small_net(10, channels=3, size=32)
    return train_poisoned(start, images, attack, target=7, schedule=QUICK, job=job())


@pytest.fixture(scope="module")
def honest(digits: tuple[LabelledImages, LabelledImages]) -> Classifier:
    return planted(digits[0], None)


@pytest.mark.parametrize("attack", [Blend(alpha=0.3), Sig(delta=0.6)], ids=["dirty", "clean"])
def test_a_planted_backdoor_works_and_an_honest_training_has_none(
    digits: tuple[LabelledImages, LabelledImages], honest: Classifier, attack: Attack
) -> None:
    train, test = digits
    threat = Threat(name=attack.name, trigger=attack, target=7)
    backdoored = planted(train, attack)
    outcome = attack_outcome(backdoored, test, threat, reference=honest)
    assert outcome.success.value > 0.8
    assert outcome.reference is not None
    assert outcome.reference.value < 0.3
    for classifier in (backdoored, honest):
        assert (predict(classifier, test)[0] == test.labels).float().mean().item() > 0.85
