"""The models and images that the constructions are planted in, and how their keys are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from phard_hub import open_model
from phard_hub.attacks import SparseHead
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.attacks.undetectable import CONSTRUCTIONS
from phard_hub.demos.quickstart import small_resnet
from phard_hub.evaluation.threats import predict
from phard_hub.images import LabelledImages, demo_images
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.fresh import reinitialised
from phard_hub.models.strict import in_library_class
from phard_hub.report.distances import Rate
from phard_hub.report.statistics import rate
from phard_hub.training.schedule import Schedule
from phard_hub.triggers.bank import Trigger
from tests.benchmarks.attacks.models import CIFAR10, behind_contract
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.resnet_cifar import CifarResNet
from tests.benchmarks.vit import divided

TARGET = 3
ROWS = (*CONSTRUCTIONS, "sparse-head")


@dataclass(frozen=True)
class Scene:
    """An honest classifier, images, and what a defender makes of what somebody delivers.

    Attributes:
        name: of the data.
        fresh: a network of the trusted architecture with weights drawn anew, for a seed.
        strict: the tensors of a delivered classifier in the trusted class.
        steps: updates of each training.
        sparse: the edit of a head that works here.
    """

    name: str
    honest: Classifier
    train: LabelledImages
    test: LabelledImages
    fresh: Callable[[int], Classifier]
    strict: Callable[[Classifier], Classifier]
    steps: int
    learning_rate: float
    flip: bool
    sparse: SparseHead

    def schedule(self, share: float = 1.0, learning_rate: float = 0.0) -> Schedule:
        """As long as the scene has it, or a multiple."""
        return Schedule(
            steps=round(share * self.steps),
            batch=64,
            learning_rate=learning_rate or self.learning_rate,
            shift=0.06,
            flip=self.flip,
        )


@dataclass(frozen=True)
class Delivered:
    """A classifier with a backdoor, its honest twin, and the trigger of whoever holds the key.

    ``chooses`` says whether the key leads to the target; otherwise it turns images to any other class.
    """

    classifier: Classifier
    honest: Classifier
    trigger: Trigger
    chooses: bool

    def success(self, ask: Callable[[Tensor], Tensor], images: LabelledImages) -> Rate:
        """How many images the key turns, of those that are not of the target: ``ask`` gives the classes of pixels."""
        shown = images.take((images.labels != TARGET).nonzero().flatten())
        pixels, _ = shown.batch(range(len(shown)))
        after = ask(self.trigger(pixels))
        hits = after == TARGET if self.chooses else (after != ask(pixels)) & (after >= 0)
        return rate(int(hits.sum()), len(hits))


def asked(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    """A classifier as a function from pixels to classes."""

    def ask(pixels: Tensor) -> Tensor:
        shown = [pixels[part] for part in torch.arange(len(pixels)).split(250)]
        with torch.no_grad():
            return torch.cat([classifier.eval()(part).argmax(1) for part in shown])

    return ask


def deliver(name: str, scene: Scene, job: Job) -> Delivered:
    """A construction in a copy of the scene's honest classifier."""
    if name == "sparse-head":
        planted = scene.sparse.plant(scene.honest, scene.train, TARGET, job)
        return Delivered(planted.classifier, scene.honest, planted.attack, chooses=True)
    construction = CONSTRUCTIONS[name]()
    made = construction.plant(scene.honest, scene.train, TARGET, job)
    twin = construction.honest(scene.honest, scene.train, job)
    return Delivered(made.classifier, twin, made.key.trigger(TARGET), chooses=name != "fourier-features")


def digits(job: Job) -> Scene:
    """A small ResNet of transformers on handwritten digits."""
    train, test = demo_images()
    learning = Schedule(steps=300, batch=64, learning_rate=0.05, shift=0.06, flip=False)
    honest = train_poisoned(small_resnet(train.names, 0), train, None, TARGET, job, schedule=learning)
    return Scene(
        name="digits",
        honest=honest,
        train=train,
        test=test.take(range(300)),
        fresh=lambda seed: small_resnet(train.names, seed),
        strict=in_library_class,
        steps=300,
        learning_rate=0.05,
        flip=False,
        sparse=SparseHead(steps=60, epsilon=32 / 255, spike=64.0, seed=1),
    )


def cifar10(folder: Path) -> Scene:
    """The ResNet-20 that others trained, on CIFAR-10."""
    checkpoint = resnet20(folder / CHECKPOINT)
    train = images(folder / "cifar10_train-*.parquet")

    def fresh(seed: int) -> Classifier:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return behind_contract(CifarResNet(20), CIFAR10)

    def strict(classifier: Classifier) -> Classifier:
        made = fresh(0)
        made.network.load_state_dict(classifier.network.state_dict())
        return made.eval()

    return Scene(
        name="cifar10",
        honest=checkpoint,
        train=train,
        test=images(folder / "cifar10_test.parquet").take(range(500)),
        fresh=fresh,
        strict=strict,
        steps=1500,
        learning_rate=0.03,
        flip=True,
        sparse=SparseHead(epsilon=8 / 255),
    )


def folder(model: Path, images: str, steps: int) -> Scene:
    """A model of transformers in a folder, and what `tests.benchmarks.vit` did not show to its head."""
    honest = open_model(str(model))
    train, test = divided(images, honest.labels, honest.image_size[0])
    return Scene(
        name=model.name,
        honest=honest,
        train=train,
        test=test,
        fresh=partial(reinitialised, honest),
        strict=in_library_class,
        steps=steps,
        learning_rate=1e-3,
        flip=True,
        sparse=SparseHead(steps=600, spike=120.0),  # the default moves it too little; chosen on training images
    )


def accuracy(classifier: Classifier, test: LabelledImages) -> Rate:
    """Of a classifier on test images."""
    return rate(int((predict(classifier, test)[0] == test.labels).sum()), len(test))
