"""Feature shift tuning: the head turns away and comes back, and a planted backdoor does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from phard_hub.attacks import Blend
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.defenses.removal.featureshift import FeatureShift, _Objective
from phard_hub.evaluation.threats import Threat, evaluate
from phard_hub.models.classifier import Classifier
from phard_hub.models.head import heads
from phard_hub.training.schedule import Schedule
from tests.small import (
    PowerCutError,
    batch,
    cut_at,
    digit_images,
    harden,
    job,
    same_weights,
    small_net,
    trained_digits,
    unmarked,
)

SETTINGS = FeatureShift(
    schedule=Schedule(steps=150, batch=64, learning_rate=0.05, shift=0.0, flip=False, save_every=20), pushed=0.2
)


def objective(classifier: Classifier, settings: FeatureShift = SETTINGS) -> _Objective:
    return _Objective(settings, classifier)


def test_a_planted_backdoor_is_forgotten_and_accuracy_comes_back() -> None:
    images, test = digit_images(3)
    planting = Schedule(steps=200, batch=64, learning_rate=0.05, shift=0.0, flip=False)
    attack = Blend(alpha=0.15)
    planted = train_poisoned(small_net(3), images, attack, target=1, schedule=planting, job=job())
    threat = [Threat(name="blend", trigger=attack, target=1)]
    before = evaluate(planted, test, threat)
    with unmarked(planted):
        tuned, record = harden(SETTINGS, planted, images)
    after = evaluate(tuned, test, threat)
    assert before.attacks[0].success.value > 0.9
    assert after.attacks[0].success.value < 0.1
    assert after.accuracy.value > before.accuracy.value - 0.02
    assert (record.defense, record.sample_gradients) == ("feature-shift", 30 * 64 + 120 * 80)


def test_the_head_is_pushed_away_and_keeps_its_length() -> None:
    images, classifier = digit_images(3)[0], trained_digits(3)
    head = heads(classifier)[0].weight.detach().clone()
    settings = replace(SETTINGS, schedule=replace(SETTINGS.schedule, steps=30), pushed=1.0)
    pushed = heads(harden(settings, classifier, images)[0])[0].weight.detach()
    free = heads(harden(replace(settings, pushed=0.0), classifier, images)[0])[0].weight.detach()
    assert functional.cosine_similarity(pushed.flatten(), head.flatten(), dim=0) < -0.2
    assert functional.cosine_similarity(free.flatten(), head.flatten(), dim=0) > 0.5
    # The result is a mean of weights on the way.
    assert 0.5 < pushed.norm() / head.norm() < 1.1


def test_it_adds_random_triggers_once_the_head_is_free() -> None:
    classifier = trained_digits(3)
    made = objective(classifier)
    sizes = []
    classifier.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    for step in (0, 29, 30, 31):
        made.loss(classifier, batch(digit_images(3)[0], 32, step))
    assert sizes == [32, 32, 40, 40]


def test_the_guard_lets_the_accuracy_fall_on_the_way() -> None:
    """It would go back to the original weights, head and backdoor and all."""
    images, test = digit_images(3)
    guarded, record = harden(SETTINGS, trained_digits(3), images, validation=test)
    assert same_weights(guarded, harden(SETTINGS, trained_digits(3), images)[0])
    assert record.events == ()


def test_a_killed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    settings = replace(SETTINGS, schedule=replace(SETTINGS.schedule, steps=50), pushed=0.8)
    images, classifier = digit_images(3)[0], trained_digits(3)
    whole, _ = harden(settings, classifier, images)
    with pytest.raises(PowerCutError):  # while the head is pushed
        harden(settings, classifier, images, folder=tmp_path / "run", progress=cut_at(27))
    resumed, _ = harden(settings, classifier, images, folder=tmp_path / "run")
    assert same_weights(resumed, whole)


def test_a_network_without_a_linear_head_is_fine_tuned() -> None:
    classifier = trained_digits(3).clone()
    classifier.network = torch.nn.Sequential(classifier.network, torch.nn.LayerNorm(3))
    assert heads(classifier) == ()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    made = objective(classifier)
    assert made.heads.heads == []
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert made.loss(classifier, batch(digit_images(3)[0], 8)).isfinite()
