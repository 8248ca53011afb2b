"""Sharpness-aware fine-tuning: a planted backdoor goes, accuracy stays."""

from __future__ import annotations

from dataclasses import replace

import torch

from phard_hub.attacks import Blend
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.defenses.removal.sharpnessaware import SharpnessAware
from phard_hub.evaluation.threats import Threat, evaluate
from phard_hub.training.schedule import Schedule
from tests.small import batch, digit_images, harden, job, small_net, trained_digits, unmarked

PLANTING = Schedule(steps=200, batch=64, learning_rate=0.05, shift=0.0, flip=False)
SETTINGS = SharpnessAware(schedule=replace(PLANTING, steps=150, sharpness=2.0))


def test_a_planted_backdoor_is_forgotten_and_accuracy_stays() -> None:
    images, test = digit_images(3)
    attack = Blend(alpha=0.15)
    planted = train_poisoned(small_net(3), images, attack, target=1, schedule=PLANTING, job=job())
    threat = [Threat(name="blend", trigger=attack, target=1)]
    before = evaluate(planted, test, threat)
    with unmarked(planted):
        tuned, record = harden(SETTINGS, planted, images)
    after = evaluate(tuned, test, threat)
    plain, _ = harden(
        replace(SETTINGS, schedule=replace(SETTINGS.schedule, sharpness=0.0), random=0.0), planted, images
    )
    assert before.attacks[0].success.value > 0.9
    assert after.attacks[0].success.value < 0.1
    assert evaluate(plain, test, threat).attacks[0].success.value > 2 * after.attacks[0].success.value
    assert after.accuracy.value > before.accuracy.value - 0.02
    assert (record.defense, record.sample_gradients) == ("sharpness-aware", 150 * 2 * 80)


def test_both_gradients_of_a_step_see_the_same_random_triggers() -> None:
    classifier, images = trained_digits(3), digit_images(3)[0]
    made = SETTINGS.objective(classifier, classifier, images, job())
    seen: list[torch.Tensor] = []
    classifier.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].clone()))
    for step in (3, 3, 4):
        made.loss(classifier, batch(images, 32, step))
    assert [len(pixels) for pixels in seen] == [40, 40, 40]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0][:32], seen[2][:32])
    assert not torch.equal(seen[0][32:], seen[2][32:])
