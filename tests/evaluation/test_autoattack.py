"""AutoAttack: what it may and may not do, where the answer is known, and that nothing of it is left."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from phard_hub.errors import InputError
from phard_hub.evaluation.autoattack import AutoAttack
from phard_hub.evaluation.threats import PGD, robust_accuracy
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.report.statistics import rate
from tests.small import Linear, as_classifier, unmarked

pytest.importorskip("pyautoattack", reason="the extra `autoattack` is not installed")


def linear_case(classes: int) -> tuple[Classifier, LabelledImages, torch.Tensor]:
    """A linear classifier that is right, and for each image the largest change that no attack survives.

    An image is turned by epsilon if for some class the margin is below epsilon times the L1 norm of the
    difference of the weights; the pixels are far from black and white.
    """
    weight = 0.05 * torch.randn(classes, 16, generator=torch.Generator().manual_seed(classes))
    classifier = as_classifier(Linear(weight, torch.zeros(classes)), classes, (1, 4, 4))
    pixels = torch.randint(90, 160, (24, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        logits = classifier(pixels.float() / 255)
    labels = logits.argmax(1)
    margins = logits.gather(1, labels[:, None]) - logits
    norms = (weight[labels][:, None] - weight).abs().sum(2)
    reach = (margins / norms).nan_to_num(torch.inf)
    reach[torch.arange(24), labels] = torch.inf
    images = LabelledImages(pixels, labels, tuple(map(str, range(classes))), "noise")
    return classifier, images, reach.min(1).values


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_linear_classifier_withstands_what_its_margins_say(classes: int) -> None:
    classifier, images, reach = linear_case(classes)
    epsilon = float(reach.quantile(0.5))
    attack = AutoAttack(epsilon=epsilon, queries=20)
    tracer, level = sys.gettrace(), logging.getLogger("auto-attack").level
    with unmarked(classifier):
        found = attack.accuracy(classifier, images)
    assert sys.gettrace() is tracer
    assert logging.getLogger("auto-attack").level == level
    # Rounding decides at the very edge.
    sure = rate(int((reach > 1.01 * epsilon).sum()), 24), rate(int((reach > 0.99 * epsilon).sum()), 24)
    assert sure[0].value <= found.value <= sure[1].value
    assert found.value <= robust_accuracy(classifier, images, PGD(epsilon=epsilon, steps=10)).value
    assert found.n == 24


def test_no_more_images_than_asked_for_and_the_seed_repeats_it() -> None:
    classifier, images, reach = linear_case(4)
    attack = AutoAttack(epsilon=float(reach.median()), images=10, queries=5)
    one, same = (attack.accuracy(classifier, images) for _ in range(2))
    assert one == same
    assert one.n == 10


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    classifier, images, _ = linear_case(3)
    with pytest.raises(InputError, match=r"pip install \"phard-hub\[autoattack\]\""):
        AutoAttack().accuracy(classifier, images)


def test_the_name() -> None:
    assert str(AutoAttack()) == "AutoAttack, Linf 8/255"
