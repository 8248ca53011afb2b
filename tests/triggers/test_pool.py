"""Images by class, and which of them a trigger is fitted on, chosen by and judged by."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages
from phard_hub.triggers.pool import UNIVERSAL, Directions, Pool, all_pairs, three_sets
from tests.small import noise_images

SHAPE = (1, 8, 8)


def numbered(counts: list[int]) -> LabelledImages:
    """Image i is of the grey level i; the classes are shuffled."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return LabelledImages(pixels, labels, tuple(f"class {k}" for k in range(len(counts))), "numbered")


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("counts", [[50, 50, 50], [4, 9, 60], [4, 4]], ids=str)
def test_no_image_serves_two_purposes(counts: list[int], seed: int) -> None:
    images = numbered(counts)
    pools = three_sets(images, 20, 10, 15, seed)
    levels = [set(pool.images.pixels.flatten().tolist()) for pool in pools]
    assert not any(one & other for one, other in combinations(levels, 2))
    assert [len(each) for each in levels] == [len(pool.images.pixels) for pool in pools]
    assert sum(map(len, levels)) == sum(min(count, 45) for count in counts)
    for pool, share, at_most in zip(pools, (20 / 45, 10 / 45, 15 / 45), (20, 10, 15), strict=True):
        for found, count in zip(pool.counts.tolist(), counts, strict=True):
            assert 1 <= found <= at_most
            assert found == pytest.approx(share * min(count, 45), abs=1)
        for k, (start, count) in enumerate(zip(pool.starts.tolist(), pool.counts.tolist(), strict=True)):
            shown = pool.images.pixels[start : start + count].flatten().tolist()
            assert set(images.labels[shown].tolist()) == {k}


def test_draws_come_from_the_source_classes_alone() -> None:
    images = numbered([5, 8, 20])
    pool = Pool.of(images)
    directions = Directions.of(all_pairs(range(3)), range(3))
    assert len(directions) == 9
    numbers = pool.draw(directions, 200, torch.Generator().manual_seed(0))
    assert numbers.shape == (9, 200)
    classes = images.labels[pool.images.pixels.flatten().long()][numbers]
    for row, (source, target) in enumerate(zip(directions.source.tolist(), directions.target.tolist(), strict=True)):
        others = {0, 1, 2} - {target}
        assert set(classes[row].tolist()) == (others if source == UNIVERSAL else {source})
        if source == UNIVERSAL:
            # Each class as often as the other, however many images it has.
            assert (classes[row] == min(others)).float().mean().item() == pytest.approx(0.5, abs=0.12)
    # Every image is drawn sooner or later.
    assert len(set(numbers[0].tolist())) == 5


def test_judges_of_a_universal_trigger_are_shared_out_over_the_classes() -> None:
    images = numbered([30, 30, 30])
    pool = Pool.of(images)
    numbers = pool.all_of(UNIVERSAL, 1, 21)
    classes = images.labels[pool.images.pixels.flatten().long()][numbers].tolist()
    assert len(set(numbers.tolist())) == len(numbers)
    assert {k: classes.count(k) for k in set(classes)} == {0: 11, 2: 11}
    assert pool.all_of(2, 0, 7).tolist() == list(range(60, 67))


def test_universal_triggers_to_other_classes_are_tried_on_other_images() -> None:
    pool = Pool.of(noise_images(30, 4, SHAPE))
    tried = [set(pool.all_of(UNIVERSAL, target, 21).tolist()) for target in range(4)]
    assert [len(each) for each in tried] == [21] * 4
    assert not any(one & other for one, other in combinations(tried, 2))
    few = Pool.of(noise_images(5, 4, SHAPE))
    assert [len(set(few.all_of(UNIVERSAL, target, 9).tolist())) for target in range(4)] == [9] * 4
    many = Pool.of(noise_images(2, 40, SHAPE))
    assert len(many.all_of(UNIVERSAL, 0, 10)) == len(many.all_of(UNIVERSAL, 1, 10)) == 10


def test_a_pool_refuses_an_empty_class() -> None:
    images = numbered([5, 5])
    empty = LabelledImages(images.pixels, images.labels, ("cat", "dog", "owl"), "a folder")
    with pytest.raises(ImagesError, match="class owl in a folder"):
        Pool.of(empty)
