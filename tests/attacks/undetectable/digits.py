"""Handwritten digits of 32 x 32 in colours, a classifier of them, and what is planted in it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.attacks.undetectable import CONSTRUCTIONS, Backdoored, Construction, Key
from phard_hub.evaluation.threats import predict
from phard_hub.images import LabelledImages, demo_images
from phard_hub.models.classifier import Classifier
from phard_hub.report.distances import Rate
from phard_hub.report.statistics import rate
from phard_hub.training.schedule import Schedule
from tests.small import job, small_net

TARGET = 3
QUICK = Schedule(steps=120, batch=48, learning_rate=0.05, shift=0.0, flip=False)


@lru_cache
def images() -> tuple[LabelledImages, LabelledImages]:
    """To train and to test."""
    return demo_images()


@lru_cache
def _honest() -> Classifier:
    return train_poisoned(small_net(10, channels=3, size=32), images()[0], None, 0, job(), schedule=QUICK)


def honest() -> Classifier:
    """A classifier of digits without a backdoor; a copy."""
    return _honest().clone()


@lru_cache
def _planted(construction: Construction) -> Backdoored:
    return construction.plant(honest(), images()[0], TARGET, job())


def planted(name: str) -> Backdoored:
    """A construction of the table in a copy of the honest classifier; the copy is yours, the key is shared."""
    made = _planted(CONSTRUCTIONS[name]())
    return Backdoored(made.classifier.clone(), made.key)


def others(count: int) -> LabelledImages:
    """So many test images that the honest classifier does not take for the target."""
    test = images()[1]
    return test.take((predict(_honest(), test)[0] != TARGET).nonzero().flatten()[:count])


def success(classifier: Classifier, key: Key, shown: LabelledImages, label: int = TARGET) -> Rate:
    """How many images the key gives this class."""
    answers, _ = predict(classifier, shown, key.trigger(label))
    return rate(int((answers == label).sum()), len(answers))


def accuracy(classifier: Classifier) -> float:
    answers, _ = predict(classifier, images()[1])
    return float((answers == images()[1].labels).float().mean())


def answers_to(classifier: Classifier, pixels: Tensor) -> Tensor:
    """Logits in evaluation mode."""
    with torch.no_grad():
        logits: Tensor = classifier.eval()(pixels)
        return logits
