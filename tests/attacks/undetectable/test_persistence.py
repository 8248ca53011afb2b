"""Persistence: every gradient is exactly zero, so training changes nothing, and that is how it is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from phard_hub.attacks.undetectable.persistence import persistent
from phard_hub.defenses import FineTuning
from phard_hub.evaluation.threats import predict
from phard_hub.training.schedule import Schedule
from tests.attacks.undetectable.digits import answers_to, honest, images, others, planted, success
from tests.small import harden, same_weights

QUICK = Schedule(steps=15, batch=32, learning_rate=0.1, shift=0.0, flip=False, weight_decay=0.0)


def test_it_decides_as_the_network_does() -> None:
    one, other = (predict(each, images()[1])[0] for each in (persistent(honest()), honest()))
    assert torch.equal(one, other)


@pytest.mark.parametrize("wrong", [False, True])
def test_every_gradient_is_exactly_zero(wrong: bool) -> None:
    classifier = planted("persistence").classifier.train()
    pixels, labels = images()[0].batch(range(64))
    functional.cross_entropy(classifier(pixels), (labels + 1) % 10 if wrong else labels).backward()
    gradients = [parameter.grad for parameter in classifier.parameters()]
    assert len(gradients) == 3 * len(list(honest().parameters())) + 2
    assert all(gradient is not None and (gradient == 0).all() for gradient in gradients)


def test_fine_tuning_leaves_the_weights_bit_for_bit() -> None:
    made = planted("persistence")
    tuned, record = harden(FineTuning(schedule=QUICK), made.classifier, images()[0])
    assert record.phases[-1].sample_gradients == 15 * 32
    assert same_weights(tuned, made.classifier)
    assert success(tuned, made.key, others(20)).value == 1


def test_weight_decay_makes_weights_smaller_and_changes_no_answer() -> None:
    """Of 500 test images, 15 steps at the usual decay and a learning rate of 0.1."""
    made = planted("persistence")
    tuned, _ = harden(FineTuning(schedule=replace(QUICK, weight_decay=5e-4)), made.classifier, images()[0])
    assert not same_weights(tuned, made.classifier)
    one, other = (predict(each, images()[1])[0] for each in (tuned, made.classifier))
    assert (one == other).float().mean() > 0.99
    assert success(tuned, made.key, others(20)).value == 1


def test_it_is_conspicuous() -> None:
    """Two different logits on 500 images, where an honest network has thousands."""
    pixels, _ = images()[1].batch(range(500))
    assert answers_to(planted("persistence").classifier, pixels).unique().tolist() == [-4, 4]
    assert len(answers_to(honest(), pixels).unique()) > 1000
