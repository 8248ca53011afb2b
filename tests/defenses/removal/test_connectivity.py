"""Mode connectivity: the curve runs through both ends, and batch norm fits the place on it."""

from __future__ import annotations

from dataclasses import replace

import torch

from phard_hub.defenses.removal.connectivity import ModeConnectivity, measure_statistics, on_the_curve
from tests.defenses.planted import defended, defenders, left, planted, short
from tests.small import digit_images, trained_digits

SETTINGS = short(ModeConnectivity(), steps=60)


def test_the_curve_is_a_quadratic_one_through_both_ends() -> None:
    start, middle, end = ({"w": torch.tensor([value])} for value in (1.0, 5.0, 3.0))
    for place in (0.0, 0.3, 1.0):
        expected = (1 - place) ** 2 * 1 + 2 * place * (1 - place) * 5 + place**2 * 3
        assert torch.allclose(on_the_curve(start, middle, end, place)["w"], torch.tensor([expected]))
    assert torch.equal(on_the_curve(start, start, start, 0.1)["w"], start["w"])


def test_a_model_on_the_curve_is_as_accurate_as_the_ends() -> None:
    for place in (0.1, 0.5):
        made, record = defended(replace(SETTINGS, place=place))
        assert left(made).accuracy > left(planted()).accuracy - 0.03
        assert [phase.defense for phase in record.phases] == ["ft", "mode-connectivity"]


def test_the_statistics_are_those_of_the_images() -> None:
    classifier, images = trained_digits(3), defenders()[0]
    measure_statistics(classifier, images)
    pixels = images.batch(range(len(images)))[0]
    with torch.no_grad():
        features = classifier.network.get_submodule("0")(classifier.preprocess(pixels))
    norm = classifier.network.get_submodule("1")
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, features.mean((0, 2, 3)), atol=0.02)
    assert norm.momentum == 0.1
    assert digit_images(3)[1].num_classes == 3
