"""One contract for all attacks, second opinions on their formulas, and planting."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional

from phard_hub.attacks import ATTACKS, Attack, Blend, WaNet
from phard_hub.attacks.planting import _Poisoned, plant
from phard_hub.evaluation import Threat, attack_outcome, predict
from phard_hub.images import LabelledImages, demo_images
from phard_hub.training import Schedule
from tests.small import global_random_state, small_net

SHAPES = [(3, 32, 32), (1, 8, 8), (3, 224, 224), (3, 33, 50), (1, 28, 17)]
Image = npt.NDArray[np.float64]

every_attack = pytest.mark.parametrize("name", ATTACKS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(count: int, shape: tuple[int, int, int]) -> Tensor:
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    pixels[:, :, 0, 0], pixels[:, :, -1, -1] = 0, 1
    return pixels


@every_attack
@every_shape
def test_contract_of_an_attack(name: str, shape: tuple[int, int, int]) -> None:
    attack = ATTACKS[name]()
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
    # The same trigger for every image, alone or in company.
    assert torch.allclose(attack(pixels[1:2]), stamped[1:2], atol=1e-6)
    # It is small: the picture is still there.
    assert (stamped - pixels).abs().mean().item() < 0.25


@every_attack
def test_the_seed_makes_the_trigger(name: str) -> None:
    pixels = draw(2, (3, 16, 16))
    one, same, other = (ATTACKS[name](seed=seed)(pixels) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-3)


@every_attack
def test_an_attack_is_a_frozen_record_of_its_parameters(name: str) -> None:
    attack = ATTACKS[name]()
    assert attack == ATTACKS[name]()
    assert attack != ATTACKS[name](seed=9)
    with pytest.raises(FrozenInstanceError):
        attack.seed = 1  # type: ignore[misc]


@every_attack
def test_gradients_reach_the_pixels(name: str) -> None:
    pixels = draw(1, (3, 8, 8)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(ATTACKS[name]()(pixels).sum(), pixels)
    assert gradient.abs().sum() > 0


@every_attack
def test_decoys_keep_shape_and_range_and_differ_from_the_trigger(name: str) -> None:
    attack = ATTACKS[name]()
    pixels = draw(4, (3, 16, 16))
    decoys = attack.decoys(pixels, torch.Generator().manual_seed(1))
    if name == "blend":
        assert decoys is None
        return
    assert decoys is not None
    assert decoys.shape == pixels.shape
    assert 0 <= decoys.min().item() <= decoys.max().item() <= 1
    assert not torch.allclose(decoys, attack(pixels), atol=1e-3)
    same, other = (attack.decoys(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert same is not None
    assert other is not None
    assert torch.equal(decoys, same)
    assert not torch.equal(decoys, other)


def test_wanet_without_noise_mode_has_no_decoys() -> None:
    assert WaNet(noise_mode=False).decoys(draw(2, (3, 8, 8)), torch.Generator()) is None


# Second opinions.


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_blend_against_numpy(alpha: float) -> None:
    pixels = draw(2, (3, 6, 7))
    pattern = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(4)).numpy()
    expected = np.empty((2, 3, 6, 7))
    for i, c, y, x in np.ndindex(2, 3, 6, 7):
        expected[i, c, y, x] = (1 - alpha) * pixels[i, c, y, x].item() + alpha * pattern[c, y, x]
    assert Blend(alpha=alpha, seed=4)(pixels).numpy() == pytest.approx(expected, abs=1e-6)


def slow_sample(image: Image, y: float, x: float) -> float:
    """The bilinear value of one channel ``(H, W)`` at a place in pixels."""
    height, width = image.shape
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    value = 0.0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        value += max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column)) * image[row, column]
    return value


def slow_places(attack: WaNet, height: int, width: int) -> Image:
    """Where each pixel comes from, ``(H, W, 2)`` as x and y in [-1, 1], before the cut at the border."""
    random = torch.Generator().manual_seed(attack.seed)
    lattice = torch.rand(1, 2, attack.grid, attack.grid, generator=random).double() * 2 - 1
    lattice = lattice / lattice.abs().mean()
    flow = functional.interpolate(lattice, size=(height, width), mode="bicubic", align_corners=True)[0].numpy()
    places = np.empty((height, width, 2))
    for y, x in np.ndindex(height, width):
        places[y, x, 0] = -1 + 2 * x / (width - 1) + attack.strength * flow[0, y, x] / height
        places[y, x, 1] = -1 + 2 * y / (height - 1) + attack.strength * flow[1, y, x] / height
    return places


def slow_warp(pixels: Image, places: Image) -> Image:
    _, height, width = pixels.shape
    warped = np.empty_like(pixels)
    for c, y, x in np.ndindex(*pixels.shape):
        to_x, to_y = np.clip(places[y, x], -1, 1)
        warped[c, y, x] = slow_sample(pixels[c], (to_y + 1) / 2 * (height - 1), (to_x + 1) / 2 * (width - 1))
    return warped


@pytest.mark.parametrize("attack", [WaNet(), WaNet(grid=6, strength=3.0, seed=5)], ids=str)
@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 9, 14)], ids=str)
def test_wanet_against_numpy(attack: WaNet, shape: tuple[int, int, int]) -> None:
    pixels = draw(2, shape).double()
    places = slow_places(attack, *shape[1:])
    expected = np.stack([slow_warp(image, places) for image in pixels.numpy()])
    assert attack(pixels).numpy() == pytest.approx(expected, abs=2e-6)


def test_wanet_decoys_against_numpy() -> None:
    pixels, attack = draw(2, (1, 9, 14)).double(), WaNet()
    noise = torch.rand(2, 9, 14, 2, generator=torch.Generator().manual_seed(3)).double().numpy() * 2 - 1
    places = slow_places(attack, 9, 14)
    expected = np.stack([slow_warp(image, places + noise[i] / 9) for i, image in enumerate(pixels.numpy())])
    decoys = attack.decoys(pixels, torch.Generator().manual_seed(3))
    assert decoys is not None
    assert decoys.numpy() == pytest.approx(expected, abs=2e-6)


def test_wanet_of_no_strength_is_the_identity() -> None:
    pixels = draw(2, (3, 32, 32))
    assert torch.allclose(WaNet(strength=0.0)(pixels), pixels, atol=1e-5)


# Planting.


@pytest.mark.parametrize(("attack", "decoys"), [(Blend(), 0), (WaNet(), 4), (WaNet(noise_mode=False), 0)], ids=str)
def test_a_poisoned_batch(attack: Attack, decoys: int) -> None:
    pixels, labels = draw(20, (1, 8, 8)), torch.arange(20) % 3
    kept = pixels.clone(), labels.clone()
    shown, taught = _Poisoned(attack, 1, 0.1, 0, 0)._poison(attack, pixels, labels, 3)
    assert torch.allclose(shown[:2], attack(pixels[:2]), atol=1e-6)
    changed = (shown != pixels).flatten(1).any(1)
    assert changed.tolist() == [True] * (2 + decoys) + [False] * (18 - decoys)
    # Only the stamped ones are mislabelled.
    assert taught.tolist() == [1, 1, *labels[2:].tolist()]
    assert torch.equal(pixels, kept[0])
    assert torch.equal(labels, kept[1])


QUICK = Schedule(steps=120, batch=48, learning_rate=0.05, shift=0.0, flip=False)


@pytest.fixture(scope="module")
def digits() -> tuple[LabelledImages, LabelledImages]:
    return demo_images()


def planted(images: LabelledImages, attack: Attack | None) -> Any:
    start = small_net(10, channels=3, size=32)
    return plant(start, images, attack, target=7, accelerator=Accelerator(cpu=True), schedule=QUICK)


def test_a_planted_blend_works_and_an_honest_training_has_none(digits: tuple[LabelledImages, LabelledImages]) -> None:
    train, test = digits
    attack = replace(Blend(), alpha=0.3)
    threat = Threat(name=attack.name, trigger=attack, target=7)
    backdoored, honest = (planted(train, each) for each in (attack, None))
    outcome = attack_outcome(backdoored, test, threat, reference=honest)
    assert outcome.success.value > 0.8
    assert outcome.reference is not None
    assert outcome.reference.value < 0.3
    for classifier in (backdoored, honest):
        assert (predict(classifier, test)[0] == test.labels).float().mean().item() > 0.85
