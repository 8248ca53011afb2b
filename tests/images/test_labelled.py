"""Images of one size with their classes: how they are divided and chosen."""

from __future__ import annotations

import pytest
import torch

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages


def numbered(counts: list[int]) -> LabelledImages:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return LabelledImages(pixels, labels, tuple(str(k) for k in range(len(counts))), "numbers")


def test_take_batch_and_of_class() -> None:
    images = numbered([3, 4])
    assert (len(images), images.num_classes) == (7, 2)
    assert images.take([5, 0]).pixels.flatten().tolist() == [5, 0]
    assert images.of_class(1).pixels.flatten().tolist() == [3, 4, 5, 6]
    pixels, labels = images.batch(torch.tensor([2, 6]), "cpu")
    assert pixels.dtype == torch.float32
    assert torch.allclose(pixels.flatten(), torch.tensor([2.0, 6.0]) / 255)
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("part", [20, 0.2])
def test_split_is_stratified_exact_and_repeatable(part: float) -> None:
    images = numbered([50, 30, 20])
    rest, taken = images.split(part, seed=3)
    assert taken.labels.bincount().tolist() == [10, 6, 4]
    both = torch.cat([rest.pixels, taken.pixels]).flatten().sort().values
    assert torch.equal(both, images.pixels.flatten())
    assert torch.equal(images.split(part, seed=3)[1].pixels, taken.pixels)
    assert not torch.equal(images.split(part, seed=4)[1].pixels, taken.pixels)


@pytest.mark.parametrize("part", [0, 100, 1.0e-9, -3])
def test_split_refuses_empty_parts(part: float) -> None:
    with pytest.raises(ImagesError, match="Cannot split"):
        numbered([50, 50]).split(part, seed=0)


def test_sample_is_balanced() -> None:
    assert numbered([50, 30, 3]).sample(5, seed=0).labels.bincount().tolist() == [5, 5, 3]


def test_choosing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    numbered([9, 9]).split(4, seed=0)
    numbered([9, 9]).sample(2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
