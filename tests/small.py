"""Small classifiers and images that several test files share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.defenses.base import Defense, hardening
from phard_hub.images import LabelledImages
from phard_hub.job import Job, Progress, silent
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Hardening
from phard_hub.training.batches import Batch, Batches
from phard_hub.training.guard import Guard
from phard_hub.training.loop import Course, Objective, train
from phard_hub.training.schedule import Schedule


def noise_images(per_class: int, classes: int, shape: tuple[int, int, int], seed: int = 0) -> LabelledImages:
    """Uniform noise, the classes one after the other."""
    source = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (per_class * classes, *shape), generator=source, dtype=torch.uint8)
    labels = torch.arange(classes).repeat_interleave(per_class)
    return LabelledImages(pixels, labels, tuple(f"class {k}" for k in range(classes)), "noise")


def digit_images(classes: int) -> tuple[LabelledImages, LabelledImages]:
    """The first digits of scikit-learn, 8x8 and grey, to train and to test."""
    pixels, labels = _digits()
    chosen = labels < classes
    names = tuple(str(k) for k in range(classes))
    return LabelledImages(pixels[chosen], labels[chosen], names, "digits").split(0.3, seed=0)


@lru_cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return torch.from_numpy(pixels)[:, None], torch.from_numpy(digits.target).long()


def small_net(
    classes: int,
    *,
    channels: int = 1,
    size: int = 8,
    dropout: float = 0.0,
    seed: int = 0,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> Classifier:
    """Two convolutions with batch norm or another; untrained, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            norm(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            norm(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(32 * 16, classes),
        )
    labels = [f"class {k}" for k in range(classes)]
    return Classifier(network, labels=labels, image_size=(size, size), mean=[0.5] * channels, std=[0.25] * channels)


class Linear(nn.Module):
    """Logits ``W x + b`` of the flat pixels."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.linear(pixels.flatten(1), self.weight, self.bias)


def as_classifier(network: nn.Module, classes: int, shape: tuple[int, int, int]) -> Classifier:
    """A network on pixels as a classifier that changes nothing about them."""
    labels = [f"class {k}" for k in range(classes)]
    return Classifier(network, labels=labels, image_size=shape[1:], mean=[0.0] * shape[0], std=[1.0] * shape[0])


@lru_cache
def _trained_digits(classes: int) -> Classifier:
    train, _ = digit_images(classes)
    schedule = Schedule(steps=150, batch=64, learning_rate=0.05, shift=0.0, flip=False)
    return train_poisoned(small_net(classes), train, None, target=0, schedule=schedule, job=job())


def trained_digits(classes: int = 3) -> Classifier:
    """A classifier of digits that is right on nearly all of them; a copy, so do with it what you like."""
    return _trained_digits(classes).clone()


def global_random_state() -> list[Any]:
    """What the global generators of torch, numpy and Python would draw next."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the legacy state is the global one
    return [torch.random.get_rng_state().tolist(), name, np.asarray(keys).tolist(), rest, random.getstate()]


def marks(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that a measurement could change, as plain values."""
    return {
        "values": {name: tensor.detach().tolist() for name, tensor in module.state_dict().items()},
        "gradients": {name: None if p.grad is None else p.grad.tolist() for name, p in module.named_parameters()},
        "modes": {name: part.training for name, part in module.named_modules()},
        "flags": {name: parameter.requires_grad for name, parameter in module.named_parameters()},
        "hooks": {
            name: len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks)
            for name, part in module.named_modules()
        },
    }


@contextmanager
def unmarked(*modules: nn.Module) -> Iterator[None]:
    """Check that a block leaves these modules and the global generators as they were."""
    before = [marks(module) for module in modules]
    random_before = global_random_state()
    yield
    assert [marks(module) for module in modules] == before
    assert global_random_state() == random_before


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether all parameters and buffers are equal, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def job(
    *, seed: int = 0, folder: Path | None = None, progress: Progress = silent, accelerator: Accelerator | None = None
) -> Job:
    """A job on the processor."""
    return Job(accelerator=accelerator or Accelerator(cpu=True), seed=seed, folder=folder, progress=progress)


def batch(images: LabelledImages, count: int, step: int = 0) -> Batch:
    """The first images as the batch of a step, unchanged."""
    pixels, labels = images.batch(range(count))
    batches = Batches(images, job(), size=count, shift=0.0, flip=False)
    return Batch(pixels, labels, step, torch.arange(count), labels, batches)


def guard(classifier: Classifier, validation: LabelledImages | None) -> Guard | None:
    """A guard of what a classifier knows about these images, if there are some."""
    return None if validation is None else Guard.of(classifier, validation, torch.device("cpu"))


def harden(
    defense: Defense,
    classifier: Classifier,
    images: LabelledImages,
    *,
    validation: LabelledImages | None = None,
    **options: Any,
) -> tuple[Classifier, Hardening]:
    """What a defense makes of a classifier, and the record of it; the options are those of `job`."""
    task = job(**options)
    made = defense.harden(classifier, images, task.part("hardening"), guard(classifier, validation))
    return made.classifier, hardening(defense, made.phases, images, task)


def trained(
    classifier: Classifier,
    images: LabelledImages,
    objective: Callable[[Classifier], Objective],
    schedule: Schedule,
    *,
    validation: LabelledImages | None = None,
    **options: Any,
) -> Course:
    """What the training loop makes of a classifier; the options are those of `job`."""
    return train(classifier, images, objective, schedule, job(**options), guard(classifier, validation))


class PowerCutError(Exception):
    """Something that no one expects."""


def cut_at(step: int) -> Callable[[str, int, int], None]:
    """A progress that breaks off there."""

    def progress(_what: str, done: int, _total: int) -> None:
        if done == step:
            raise PowerCutError

    return progress
