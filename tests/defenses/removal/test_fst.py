"""FST as published: the head is far from the original one when it ends, and has its length on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from phard_hub.defenses.removal.fst import FeatureShiftTuning
from phard_hub.errors import InputError
from phard_hub.models.head import heads
from tests.defenses.planted import defended, planted, short
from tests.small import digit_images, harden, trained_digits

SETTINGS = short(FeatureShiftTuning())


def test_the_head_is_pushed_away_until_the_end() -> None:
    alone = replace(SETTINGS, weight=0.0)
    original, pushed, free = (
        heads(each)[0].weight.detach() for each in (planted(), defended(SETTINGS)[0], defended(alone)[0])
    )
    away, as_drawn = (
        functional.cosine_similarity(original.flatten(), each.flatten(), dim=0) for each in (pushed, free)
    )
    assert away < as_drawn - 0.1
    assert abs(pushed.norm() / original.norm() - 1) < 0.05


def test_a_network_without_a_linear_head_is_refused() -> None:
    classifier = trained_digits(3)
    classifier.network = torch.nn.Sequential(classifier.network, torch.nn.LayerNorm(3))
    with pytest.raises(InputError, match="FST needs a network that ends in a linear layer"):
        harden(SETTINGS, classifier, digit_images(3)[0])
