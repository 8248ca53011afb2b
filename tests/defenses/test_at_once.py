"""Forgetting and hardening at once, for few images: the backdoor goes, distances grow, accuracy stays."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from phard_hub.defenses.pervasive import AtOnce
from phard_hub.evaluation.threats import attack_outcome, evaluate
from phard_hub.models.classifier import Classifier
from phard_hub.training.schedule import Schedule
from phard_hub.triggers.search import measure
from tests.defenses.hardening.test_adversarial import SEARCH, TARGET, THREAT, backdoored
from tests.small import digit_images, harden

FEW = digit_images(3)[0].take(range(0, len(digit_images(3)[0]), 4))
SETTINGS = AtOnce(
    schedule=Schedule(
        steps=80, batch=32, learning_rate=0.05, clip=100.0, sharpness=1.0, interpolation=0.65, shift=0.0, flip=False
    ),
    head_start_batch=32,
    learning_rate=0.03,
    price=0.1,
)


@cache
def hardened(settings: AtOnce) -> Classifier:
    """The classifier with the backdoor, hardened with these images."""
    return harden(settings, backdoored(), FEW)[0]


def universal(classifier: Classifier) -> float:
    """The smallest trigger to the target of the backdoor from everywhere."""
    found = measure(classifier, digit_images(3)[0], SEARCH).distances.universal
    (distance,) = (pair.distance for pair in found if pair.target == TARGET)
    return float("inf") if distance is None else distance


def test_it_removes_a_backdoor_and_keeps_the_accuracy() -> None:
    test = digit_images(3)[1]
    assert attack_outcome(backdoored(), test, THREAT).success.value > 0.9
    assert attack_outcome(hardened(SETTINGS), test, THREAT).success.value < 0.1
    assert evaluate(hardened(SETTINGS), test).accuracy.value > evaluate(backdoored(), test).accuracy.value - 0.03


def test_it_enlarges_the_distance_and_the_bank_has_a_part_in_it() -> None:
    assert universal(hardened(SETTINGS)) > 2.5 * universal(backdoored())
    alone = replace(SETTINGS, random=0.0, stamped=1.0, budget=14.0)
    idle = replace(alone, learning_rate=0.0)  # its triggers stay where they started, and do nothing
    assert universal(hardened(alone)) > 1.08 * universal(hardened(idle))
