"""Triggers that a network draws: the identity at strength 0, one for each row, and scaled by their last layer."""

from __future__ import annotations

import pytest
import torch

from phard_hub.triggers.unets import UNets


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 17), (3, 33, 50)], ids=str)
def test_images_keep_their_shape_and_range(shape: tuple[int, int, int]) -> None:
    nets, pixels = UNets(2, shape).randomise(0), torch.rand(3, *shape)
    index = torch.tensor([0, 1, 0])
    stamped = nets(pixels, index)
    assert stamped.shape == pixels.shape
    assert bool((stamped >= 0).all())
    assert bool((stamped <= 1).all())
    assert not torch.equal(stamped, pixels)
    assert torch.equal(nets(pixels, index, torch.zeros(3)), pixels)
    # Each image is drawn for by its own network alone.
    for number, row in enumerate(index.tolist()):
        alone = nets(pixels[number : number + 1], torch.tensor([row]))
        torch.testing.assert_close(alone[0], stamped[number])


def test_nothing_is_drawn_at_first() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(UNets(1, (3, 8, 8))(pixels, torch.zeros(2, dtype=torch.long)), pixels)


def test_taken_at_a_strength_is_drawn_at_it() -> None:
    nets, other = UNets(3, (3, 8, 8)).randomise(1), UNets(3, (3, 8, 8))
    pixels, index = 0.4 + 0.2 * torch.rand(4, 3, 8, 8), torch.full((4,), 1)
    other.take(nets, torch.tensor([False, True, False]), torch.tensor([5.0, 0.5, 5.0]))
    torch.testing.assert_close(other(pixels, index), nets(pixels, index, torch.full((4,), 0.5)))
    assert torch.equal(other(pixels, torch.zeros(4, dtype=torch.long)), pixels)
    assert torch.equal(UNets(3, (3, 8, 8)).randomise(1)(pixels, index), nets(pixels, index))
