"""Digits with a faint planted pattern, and what is left of it after a defense."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from phard_hub.attacks import Blend
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.defenses.trained import Scheduled
from phard_hub.evaluation.threats import Threat, evaluate
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Hardening
from phard_hub.training.schedule import Schedule
from tests.small import digit_images, harden, job, small_net

D = TypeVar("D", bound=Scheduled)
TARGET = 1
THREAT = Threat(name="blend", trigger=Blend(alpha=0.15), target=TARGET)


class Left(NamedTuple):
    """Shares of the test images."""

    success: float
    accuracy: float


@lru_cache
def planted() -> Classifier:
    """A classifier of three digits that the pattern sends to class 1; do not change it."""
    schedule = Schedule(steps=200, batch=64, learning_rate=0.05, shift=0.0, flip=False)
    return train_poisoned(small_net(3), digit_images(3)[0], Blend(alpha=0.15), TARGET, job(), schedule=schedule)


def left(classifier: Classifier) -> Left:
    """How often the pattern still works, and how often the classifier does."""
    seen = evaluate(classifier, digit_images(3)[1], [THREAT])
    return Left(seen.attacks[0].success.value, seen.accuracy.value)


def short(defense: D, steps: int = 100, **schedule: Any) -> D:
    """The defense for small batches of digits, which are neither shifted nor mirrored."""
    made = defense.lasting(steps)
    return replace(made, schedule=replace(made.schedule, **({"batch": 32, "shift": 0.0, "flip": False} | schedule)))


@lru_cache
def defended(defense: Scheduled, **options: Any) -> tuple[Classifier, Hardening]:
    """What it makes of the planted classifier with 70 % of the images; the others are for validation."""
    images, validation = defenders()
    return harden(defense, planted(), images, validation=validation, **options)


def defenders() -> tuple[LabelledImages, LabelledImages]:
    """What the defender trains and validates on."""
    return digit_images(3)[0].split(0.3, seed=1)
