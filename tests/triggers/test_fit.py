"""What the trigger can express: one parameter set explains each known attack on images it was not fitted to.

The value is the share of an attack's energy that is explained, ``1 - MSE(G(x), attack(x)) / MSE(x, attack(x))``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from phard_hub.attacks import Blend, WaNet
from phard_hub.triggers.bank import Bank, Parts
from tests.triggers.fitting import energy, explained, fit

SIDE = 32
STEPS = 150
BATCH = 24


def photos() -> tuple[Tensor, Tensor]:
    """Crops of the two photos inside scikit-learn as uint8: (to fit, unseen), which share no pixel."""
    from sklearn.datasets import load_sample_images

    crops = []
    for photo in load_sample_images().images:
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
        tiles = pixels.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)
        crops.append(tiles.permute(1, 2, 0, 3, 4).reshape(-1, 3, SIDE, SIDE))
    every = torch.cat(crops)
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
    half = len(every) // 2
    return every[order[:half]], every[order[half:]]


def sinusoid(pixels: Tensor) -> Tensor:
    """SIG: six vertical waves of 40 grey levels (Barni et al., 2019)."""
    columns = torch.arange(pixels.shape[3]) / pixels.shape[3]
    return (pixels + 40 / 255 * torch.sin(2 * torch.pi * 6 * columns)).clamp(0, 1)


def reflection(pixels: Tensor) -> Tensor:
    """A blurred picture mirrored in a pane of glass."""
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    picture = functional.interpolate(noise, size=pixels.shape[2:], mode="bicubic", align_corners=False)
    return (0.7 * pixels + 0.3 * picture).clamp(0, 1)


def sepia(pixels: Tensor) -> Tensor:
    """A gamma curve, then a matrix over the channels: the usual recipe of a filter."""
    rows = torch.tensor([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    toned = torch.einsum("ij,njhw->nihw", rows, pixels**0.8)
    return (0.5 * pixels**0.8 + 0.5 * toned).clamp(0, 1)


def dusk(pixels: Tensor) -> Tensor:
    """More contrast, darker, and bluer in the shadows."""
    contrast = pixels * pixels * (3 - 2 * pixels)
    return (contrast * torch.tensor([0.75, 0.8, 0.9]).view(3, 1, 1) + 0.05 * (1 - pixels)).clamp(0, 1)


ATTACKS: dict[str, Callable[[Tensor], Tensor]] = {
    "WaNet": WaNet(),
    "SIG": sinusoid,
    "Blend": Blend(),
    "reflection": reflection,
    "sepia": sepia,
    "dusk": dusk,
}


def fitted_to_all(parts: Parts) -> dict[str, float]:
    """Fit one trigger to each attack, and judge them on unseen photos."""
    seen, unseen = photos()
    bank = Bank(len(ATTACKS), (3, SIDE, SIDE), parts).randomise(0)
    attacks = list(ATTACKS.values())
    fit(bank, attacks, seen, [energy(attack, seen.float() / 255) for attack in attacks], steps=STEPS, batch=BATCH)
    pixels = unseen.float() / 255
    return {name: explained(bank.trigger(row), attack, pixels) for row, (name, attack) in enumerate(ATTACKS.items())}


@pytest.fixture(scope="module")
def fitted() -> dict[str, float]:
    return fitted_to_all(Parts())


@pytest.fixture(scope="module")
def without_warp() -> dict[str, float]:
    return fitted_to_all(replace(Parts(), warp=False))


@pytest.mark.parametrize("name", ATTACKS)
def test_one_trigger_explains_the_attack_on_unseen_images(name: str, fitted: dict[str, float]) -> None:
    assert fitted[name] >= 0.95


def test_only_the_warp_explains_a_warp(without_warp: dict[str, float]) -> None:
    assert without_warp["WaNet"] < 0.5
    assert without_warp["Blend"] >= 0.95
