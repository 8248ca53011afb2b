"""An edit of the head: fine-tuning leaves it, another head does not, and beside the head before it stands out."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import nn

from phard_hub.attacks import Planted, SparseHead
from phard_hub.auditing.weights import Spectrum
from phard_hub.defenses import FineTuning, HeadReset
from phard_hub.errors import InputError
from phard_hub.evaluation.threats import Threat, attack_outcome
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.models.head import Encoder, linear_head
from phard_hub.report.distances import Rate
from phard_hub.training.schedule import Schedule
from tests.attacks.undetectable.digits import TARGET, accuracy, honest, images
from tests.small import Linear, as_classifier, guard, harden, job, same_weights

WORKS = SparseHead(steps=40, epsilon=32 / 255, spike=64.0, seed=1)
HIDDEN = replace(WORKS, dither=0.3, spike=1.2)
TUNING = FineTuning(schedule=Schedule(steps=60, batch=32, learning_rate=0.02, shift=0.0, flip=False))


@lru_cache
def planted(attack: SparseHead) -> Planted:
    return attack.plant(honest(), images()[0], TARGET, job())


def rate(classifier: Classifier, made: Planted) -> Rate:
    threat = Threat(name="sparse-head", trigger=made.attack, target=TARGET)
    return attack_outcome(classifier, images()[1], threat).success


def difference(classifier: Classifier) -> Spectrum:
    return Spectrum.of(linear_head(classifier).weight.detach(), linear_head(honest()).weight.detach())


def test_it_works_and_only_the_head_is_another() -> None:
    made = planted(WORKS)
    before, after = honest().state_dict(), made.classifier.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "network.9.weight",
        "network.9.bias",
    }
    assert accuracy(made.classifier) >= accuracy(honest()) - 0.02
    assert rate(made.classifier, made).value > 0.6
    assert rate(honest(), made).value < 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_beside_the_head_before_it_stands_out(seed: int) -> None:
    """T11: at two sizes of the edit; the multiples and the noise are drawn, the pattern does not matter here."""
    for spike in (8.0, 64.0):
        seen = difference(planted(replace(WORKS, steps=2, spike=spike, seed=seed)).classifier)
        assert seen.has_spike
        assert seen.share > 0.5
        assert seen.ratio > 3


def test_where_it_is_hidden_the_noise_stands_out_and_it_does_not_work() -> None:
    """T12."""
    made = planted(HIDDEN)
    seen = difference(made.classifier)
    assert not seen.has_spike
    assert seen.is_even
    assert rate(made.classifier, made).value < 0.15


@pytest.mark.parametrize(("learning_rate", "steps", "count"), [(0.02, 60, 1297), (0.05, 60, 200), (0.005, 80, 600)])
def test_honest_fine_tuning_is_not_flagged(learning_rate: float, steps: int, count: int) -> None:
    schedule = replace(TUNING.schedule, learning_rate=learning_rate, steps=steps)
    seen = difference(harden(FineTuning(schedule=schedule), honest(), images()[0].take(range(count)))[0])
    assert not seen.has_spike
    assert not seen.is_even


def test_fine_tuning_leaves_it() -> None:
    """T14: on 200 clean images, and on all 1,297."""
    made = planted(WORKS)
    for count in (200, 1297):
        tuned, _ = harden(TUNING, made.classifier, images()[0].take(range(count)))
        assert rate(tuned, made).value > 0.2


@pytest.mark.parametrize("count", [200, 1000])
def test_another_head_removes_it(count: int) -> None:
    """T13: to the bit what the same images make of the model without the edit."""
    made, few = planted(WORKS), images()[0].take(range(count))
    reset, record = harden(HeadReset(), made.classifier, few, validation=images()[1])
    twin, _ = harden(HeadReset(), honest(), few)
    assert same_weights(reset, twin)
    assert rate(reset, made).value <= 0.05
    assert accuracy(reset) >= accuracy(honest()) - (0.02 if count == 1000 else 0.1)
    assert "not on the head that came with the model" in record.events[0]
    assert record.forgotten


def test_the_head_is_that_of_a_logistic_regression() -> None:
    """Scikit-learn's, on the same features in units of how much they vary."""
    from sklearn.linear_model import LogisticRegression

    few = images()[0].take(range(300))
    made = HeadReset(decay=0.01).harden(honest(), few, job(), guard(honest(), None)).classifier
    with torch.no_grad():
        features = Encoder(honest().eval())(few.batch(range(300))[0]).double()
    spread = features.std(0, correction=0).clamp_min(1e-9)
    standard = ((features - features.mean(0)) / spread).numpy()
    slow = LogisticRegression(C=1 / (0.01 * 300), max_iter=2000, tol=1e-8).fit(standard, few.labels.numpy())
    with torch.no_grad():
        logits = made.eval()(few.batch(range(300))[0]).softmax(1)
    assert torch.allclose(logits, torch.from_numpy(slow.predict_proba(standard)).float(), atol=0.01)


def test_a_model_without_a_linear_head_and_classes_without_images_are_refused() -> None:
    flat = as_classifier(Linear(torch.zeros(10, 3072), torch.zeros(10)), 10, (3, 32, 32))
    with pytest.raises(InputError, match="ends in 0 layers that make logits"):
        harden(HeadReset(), flat, images()[0])
    some: LabelledImages = images()[0].take((images()[0].labels != 4).nonzero().flatten())
    with pytest.raises(InputError, match="no image of class 'class 4'"):
        harden(HeadReset(), honest(), some)
    with pytest.raises(InputError, match="ends in 0 layers"):
        WORKS.plant(as_classifier(nn.Flatten(), 3072, (3, 32, 32)), images()[0], 0, job())
