"""Random triggers: of one kind each, spread over what that kind can do, and the same for the same generator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from phard_hub.draws import Draws
from phard_hub.triggers.bank import KIND_OF, Bank, Parts, change_size
from phard_hub.triggers.drawn import random_triggers, stamp_at_random

EVERY = Parts(latent=True)
SHAPES = [(1, 8, 8), (3, 32, 32), (3, 33, 18), (3, 48, 70)]


def drawn(count: int = 200, shape: tuple[int, int, int] = (3, 32, 32), parts: Parts = EVERY, seed: int = 0) -> Bank:
    return random_triggers(shape, parts, Draws.seeded(seed, count))


def kinds(bank: Bank, row: int) -> set[str]:
    """What a trigger changes."""
    return {KIND_OF[name] for name, values in bank.named_parameters() if bool((values[row] != 0).any())}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_is_of_one_kind_and_all_kinds_come(shape: tuple[int, int, int]) -> None:
    found = [kinds(drawn(shape=shape), row) for row in range(200)]
    assert all(len(each) == 1 for each in found)
    counts = [sum(each == {kind} for each in found) for kind in ("warp", "colour", "field")]
    assert sum(counts) == 200
    assert min(counts) > 40


@pytest.mark.parametrize("left", ["warp", "colour", "field"])
def test_only_parts_that_there_are_are_drawn(left: str) -> None:
    parts = Parts(warp=left == "warp", curve=left == "colour", colour=left == "colour", field=left == "field")
    assert {kind for row in range(20) for kind in kinds(drawn(20, parts=parts), row)} == {left}


def test_without_any_part_nothing_changes() -> None:
    parts = Parts(warp=False, curve=False, colour=False, field=False, latent=True)
    pixels = torch.rand(4, 3, 32, 32)
    assert torch.equal(drawn(4, parts=parts)(pixels, torch.arange(4)), pixels)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_changes_of_colour_and_pictures_are_large(shape: tuple[int, int, int]) -> None:
    """Large enough to be brought down to any size that is asked for."""
    pixels = torch.rand(100, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parts in (replace(EVERY, warp=False, field=False), replace(EVERY, warp=False, curve=False, colour=False)):
            changed = drawn(100, shape, parts)(pixels, torch.arange(100))
            levels = 255 * change_size(changed, pixels) / pixels[0].numel() ** 0.5
            assert levels.median() > 40


def spread_over_waves(picture: Tensor) -> float:
    """Number of waves, as far as they have the same energy."""
    energy = torch.fft.rfft2(picture).abs().square()
    energy[0, 0] = 0
    return float(energy.sum().square() / energy.square().sum().clamp(min=1e-9))


def test_pictures_are_of_a_few_waves_or_of_many_and_grey_or_not() -> None:
    bank = drawn(300, parts=Parts(warp=False, curve=False, colour=False))
    pictures = bank.get_parameter("values").detach()
    waves = torch.tensor([spread_over_waves(picture[0]) for picture in pictures])
    assert (waves < 4).float().mean() > 0.1
    assert (waves > 50).float().mean() > 0.1
    grey = (pictures[:, 0] == pictures[:, 1]).flatten(1).all(1).float().mean().item()
    assert grey == pytest.approx(0.5, abs=0.1)
    assert pictures.flatten(1).std(1).tolist() == pytest.approx([0.25] * 300, rel=1e-3)


def test_the_same_generator_draws_the_same() -> None:
    one, same, other = drawn(seed=1), drawn(seed=1), drawn(seed=2)
    for name, values in one.named_parameters():
        assert torch.equal(values, same.get_parameter(name))
        assert not torch.equal(values, other.get_parameter(name))


def test_images_are_stamped_at_any_size_up_to_the_largest() -> None:
    pixels = 0.4 + 0.2 * torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))  # hardly anything is cut
    level = pixels[0].numel() ** 0.5 / 255
    stamped = stamp_at_random(pixels, Parts(), 30.0, Draws.seeded(0, 64))
    sizes = change_size(stamped, pixels) / level
    assert sizes.min() < 6
    assert 20 < sizes.max() < 36  # half a warp is not quite half the change
    assert sizes.unique().numel() == 64
    assert not len(stamp_at_random(pixels[:0], Parts(), 30.0, Draws.seeded(0, 0)))
