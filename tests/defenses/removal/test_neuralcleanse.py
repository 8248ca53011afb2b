"""Neural Cleanse: the planted class is found, unlearns its trigger, and a model without one is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from phard_hub.defenses.inversion import Inversion
from phard_hub.defenses.removal.neuralcleanse import NeuralCleanse, outliers
from tests.defenses.planted import TARGET, defended, left, planted, short
from tests.small import same_weights

SETTINGS = replace(
    short(NeuralCleanse(), steps=60),
    search=Inversion(inner_steps=150, bound=0.98, factor=2.0, patience=5, jitter=0.0),
    searched_on=96,
    anomaly=1.0,
)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([10.0, 11.0, 9.0, 10.0, 1.0], [4]), ([10.0, 11.0, 9.0, 10.5, 9.5], []), ([3.0, 3.0, 3.0], [])],
)
def test_an_outlier_is_far_below_the_median(sizes: list[float], expected: list[int]) -> None:
    assert outliers(torch.tensor(sizes), 2.0).tolist() == expected


def test_the_planted_class_is_found_and_unlearns_its_trigger() -> None:
    made, record = defended(replace(SETTINGS, anomaly=0.5))
    assert record.phases[0].events[0] == f"1 of 3 classes are outliers: {TARGET}"
    assert left(made).success < 0.1
    assert left(made).accuracy > left(planted()).accuracy - 0.04


def test_without_an_outlier_nothing_is_changed_and_the_search_is_counted() -> None:
    quick = replace(SETTINGS, search=Inversion(inner_steps=3, bound=0.0), anomaly=100.0)
    made, record = defended(quick)
    assert same_weights(made, planted())
    assert record.phases[0].events == ("no class of 3 is an outlier: nothing was changed",)
    assert record.sample_gradients == 3 * 2 * 96
