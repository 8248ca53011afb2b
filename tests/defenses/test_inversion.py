"""Inverted triggers: they work, they are small, every setting has a part in it, and the classifier is left alone."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch

from phard_hub.defenses.inversion import Inversion, Stamps
from tests.defenses.planted import TARGET, planted
from tests.small import digit_images, unmarked

QUICK = Inversion(inner_steps=60, bound=0.9, patience=5)
SHAPE = (1, 8, 8)


@lru_cache
def found(settings: Inversion, per_class: int = 20) -> Stamps:
    """Triggers from each class to the next, and how they were found; do not change them."""
    images = digit_images(3)[0]
    chosen = torch.cat([(images.labels == k).nonzero().flatten()[:per_class] for k in range(3)])
    pixels, labels = images.batch(chosen)
    random = torch.Generator().manual_seed(0)
    start = Stamps.drawn(3, SHAPE, random, torch.device("cpu"))
    return settings.invert(planted(), pixels, labels, torch.tensor([1, 2, 0]), start, random)


def test_a_found_trigger_works_and_its_size_is_that_of_its_mask() -> None:
    stamps, images = found(QUICK), digit_images(3)[0]
    assert not stamps.failed.any()
    assert torch.allclose(stamps.size, stamps.mask.sum((1, 2, 3)))
    for source, target in ((0, 1), (1, 2), (2, 0)):
        pixels = images.batch((images.labels == source).nonzero().flatten()[:20])[0]
        turned = planted().clone().eval()(stamps(pixels, torch.full((20,), source))).argmax(1) == target
        assert turned.float().mean() >= QUICK.bound


def test_a_stamp_is_a_mask_and_a_pattern() -> None:
    stamps, pixels = found(QUICK), digit_images(3)[0].batch(range(4))[0]
    which = torch.tensor([0, 2, 1, 0])
    mask, pattern = stamps.mask[which], stamps.pattern[which]
    assert torch.allclose(stamps(pixels, which), (1 - mask) * pixels + mask * pattern, atol=1e-6)


def test_the_planted_class_is_nearest() -> None:
    longer = found(replace(QUICK, inner_steps=200))
    assert longer.size.argmin() == 0  # from 0 to 1
    assert TARGET == 1
    assert (longer.size <= found(QUICK).size).all()


def test_the_classifier_is_left_alone() -> None:
    with unmarked(planted()):
        found(replace(QUICK, inner_steps=4))


def test_what_never_works_has_the_size_of_the_image() -> None:
    stamps = found(replace(QUICK, inner_steps=1, bound=1.0, learning_rate=0.0))
    assert stamps.failed.any()
    assert (stamps.size[stamps.failed] == math.prod(SHAPE)).all()


OTHERS = {
    "inner_steps": 40,
    "bound": 0.5,
    "price": 1e-2,
    "factor": 3.0,
    "patience": 2,
    "jitter": 0.1,
    "learning_rate": 0.2,
    "betas": (0.9, 0.999),
}


@pytest.mark.parametrize(("name", "value"), OTHERS.items())
def test_every_setting_has_an_effect(name: str, value: Any) -> None:
    assert not torch.equal(found(replace(QUICK, **{name: value})).mask, found(QUICK).mask)


def test_the_images_have_an_effect() -> None:
    assert not torch.equal(found(QUICK, per_class=10).mask, found(QUICK).mask)
