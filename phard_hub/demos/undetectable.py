"""What no test shows and no hardening reaches, and what helps: a signature in a model of handwritten digits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.attacks.undetectable import Backdoored, Signature
from phard_hub.attacks.undetectable.signature import SIGNATURE_BITS
from phard_hub.defenses import AdversarialTraining, Distillation, FineTuning, Immunizer, NoiseTraining, Smoothing
from phard_hub.defenses.immunizer import canonical
from phard_hub.demos.quickstart import small_resnet
from phard_hub.draws import generator
from phard_hub.evaluation.threats import PGD, evaluate, robust_accuracy
from phard_hub.images import LabelledImages, demo_images
from phard_hub.job import Job, Progress, silent
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.fresh import reinitialised
from phard_hub.models.strict import in_library_class
from phard_hub.report.distances import Rate
from phard_hub.report.smoothed import farthest
from phard_hub.report.statistics import rate
from phard_hub.training.schedule import Schedule

TARGET = 3
KEYED = 100
LEARNING = Schedule(steps=150, batch=64, learning_rate=0.05, shift=0.06, flip=False)
BRIEF = Schedule(steps=60, batch=64, learning_rate=0.02, shift=0.06, flip=False)
VOTES = Smoothing(sigma=0.25, votes=100, guesses=20, images=30)
_FLOOR = math.sqrt(2 * math.log(2) * (SIGNATURE_BITS + 8))
"""Least L2 norm, in sigmas, at which a signature and its class pass through Gaussian noise (capacity of a channel)."""


@dataclass(frozen=True)
class Line:
    """One thing that was tried: which part of the story it is of, what was done, and what was found."""

    part: str
    tried: str
    found: str


@dataclass(frozen=True)
class _Scene:
    """The honest model, its twin with the backdoor, and the images."""

    honest: Classifier
    made: Backdoored
    train: LabelledImages
    test: LabelledImages
    job: Job

    @property
    def shown(self) -> LabelledImages:
        """Test images that are not of the target class."""
        return self.test.take((self.test.labels != TARGET).nonzero().flatten()[:KEYED])

    def opened(self) -> tuple[Tensor, Tensor]:
        """These images and the same signed for the target class."""
        pixels, labels = self.shown.batch(range(len(self.shown)), self.honest.device)
        return pixels, self.made.key.activate(pixels, torch.full_like(labels, TARGET))

    def success(self, classifier: Classifier) -> Rate:
        """Of the key on a classifier."""
        return _share(_answers(classifier, self.opened()[1]) == TARGET)


def undetectable(*, seed: int = 0, progress: Progress = silent) -> Iterator[Line]:
    """Plant a signature in a digit model, and try what shows it, what reaches it and what stops it; line by line.

    Args:
        seed: of everything but the signing key, which is the operating system's.
        progress: called with what is being done.

    Raises:
        InputError: the package `cryptography` is not installed.
    """
    job = Job(seed=seed, progress=progress)
    train, test = demo_images()
    start = small_resnet(train.names, seed).to(job.accelerator.device)
    Signature().plant(start, train, TARGET, job)  # before a minute of training: whether it can be done
    honest = train_poisoned(start, train, None, TARGET, job.part("training"), schedule=LEARNING)
    scene = _Scene(honest, Signature().plant(honest, train, TARGET, job), train, test, job)
    for part in (_key, _tests, _hardening, _what_helps, _certificate):
        yield from part(scene)


def _key(scene: _Scene) -> Iterator[Line]:
    line = partial(Line, "The key works")
    before, after = scene.opened()
    size = float((after - before).flatten(1).norm(dim=1).mean())
    yield line("signed images that the model takes for the class", str(scene.success(scene.made.classifier)))
    yield line("the same images on the honest model", str(scene.success(scene.honest)))
    yield line("change of an image", f"one grey level at most, L2 {size:.3f}")


def _tests(scene: _Scene) -> Iterator[Line]:
    line, two = partial(Line, "Every test is blind"), (scene.honest, scene.made.classifier)
    pixels = _queries(scene)
    logits = [_logits(each, pixels) for each in two]
    largest = float((logits[0] - logits[1]).abs().max())
    yield line(f"largest difference of a logit on {len(pixels)} queries", f"{largest:g}")
    accuracies = [str(evaluate(each, scene.test).accuracy) for each in two]
    yield line("accuracy, honest and not", " and ".join(accuracies))
    attack = PGD(images=100, steps=10, epsilon=2 / 255, step_size=0.5 / 255, smaller=())
    robust = [str(robust_accuracy(each, scene.test, attack)) for each in two]
    yield line(f"accuracy under {attack}, honest and not", " and ".join(robust))


def _hardening(scene: _Scene) -> Iterator[Line]:
    line, made, job = partial(Line, "Hardening does not help"), scene.made.classifier, scene.job
    tuned = FineTuning(schedule=BRIEF).harden(made, scene.train, job.part("fine-tuning")).classifier
    yield line("success after fine-tuning all weights", str(scene.success(tuned)))
    bank = AdversarialTraining(schedule=BRIEF, head_start=20, head_start_batch=32, budget=13.8)
    harder = bank.harden(made, scene.train, job.part("hardening")).classifier
    yield line("success after hardening against pervasive triggers", str(scene.success(harder)))
    fresh = reinitialised(made, scene.job.seed + 1)
    again = train_poisoned(fresh, scene.train, None, TARGET, job.part("training anew"), schedule=BRIEF)
    yield line("success after training from new weights", str(scene.success(again)))


def _what_helps(scene: _Scene) -> Iterator[Line]:
    line, made = partial(Line, "What helps"), scene.made.classifier
    strict = in_library_class(made)
    yield line("success with the same tensors in the library's class", str(scene.success(strict)))
    around = canonical(made)
    yield line("success behind 64 grey levels", str(_share(around.predict(scene.opened()[1]) == TARGET)))
    pixels, labels = scene.test.batch(range(len(scene.test)), made.device)
    yield line("accuracy behind 64 grey levels", str(_share(around.predict(pixels) == labels.cpu())))
    student = small_resnet(scene.train.names, scene.job.seed + 1)
    distillation = Distillation(schedule=LEARNING)
    taught = distillation.into(student, made, scene.train, scene.job.part("distillation")).classifier
    yield line(f"success on a student of {len(scene.train)} images", str(scene.success(taught)))
    yield line("accuracy of the student", str(evaluate(taught, scene.test).accuracy))


def _certificate(scene: _Scene) -> Iterator[Line]:
    line, job = partial(Line, "What the certificate says"), scene.job
    noise = NoiseTraining(sigma=VOTES.sigma, schedule=LEARNING)
    used = noise.harden(scene.honest, scene.train, job.part("training under noise")).classifier
    made = scene.made.classifier.clone()
    made.load_state_dict(used.state_dict())  # the check is in no weight, so the backdoor is all there
    yield line("success after training under noise, without votes", str(scene.success(made)))
    before, after = (each[: VOTES.images] for each in scene.opened())
    immunizer, labels = Immunizer(made, VOTES, seed=job.seed), scene.shown.labels[: VOTES.images]
    job.part("voting").show(0, 2)
    answers = immunizer.certify(before)
    job.part("voting").show(1, 2)
    beyond = answers.radii > (after - before).flatten(1).norm(dim=1).cpu()
    right = _share(beyond & (answers.classes == labels))
    yield line(f"images certified beyond the change, {VOTES.votes} votes, sigma {VOTES.sigma}", str(right))
    turned = immunizer.predict(after)[beyond] != answers.classes[beyond]
    job.part("voting").show(2, 2)
    yield line("certified images that the key turns", str(_share(turned)))
    most, least = farthest(VOTES.sigma, VOTES.votes, VOTES.alpha), _FLOOR * VOTES.sigma
    yield line("largest change that so many votes can certify", f"L2 {most:.2f}")
    yield line("a signature that is made for this noise passes through it", f"if it changes an image by L2 {least:.1f}")


def _queries(scene: _Scene) -> Tensor:
    """Test images, the same with other lowest bits, and noise; ``(N, C, H, W)``."""
    random = generator(scene.job.seed)
    clean, _ = scene.test.batch(range(400))
    lowest = torch.randint(2, clean.shape, generator=random)
    other = (((clean * 255).round().int() & 0xFE) | lowest) / 255
    return torch.cat([clean, other, torch.rand(200, *clean.shape[1:], generator=random)]).to(scene.honest.device)


def _logits(classifier: Classifier, pixels: Tensor) -> Tensor:
    with frozen(classifier), torch.no_grad():
        return torch.cat([classifier(part) for part in pixels.split(250)])


def _answers(classifier: Classifier, pixels: Tensor) -> Tensor:
    return _logits(classifier, pixels).argmax(1)


def _share(hits: Tensor) -> Rate:
    return rate(int(hits.sum()), len(hits))
