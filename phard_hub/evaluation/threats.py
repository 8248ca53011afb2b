"""How well a classifier works, and how well known attacks work on it; every rate with n and interval.

The processes of a job divide the images among themselves, so all of them have to call what is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn import functional

from phard_hub.attacks.planted import read_working
from phard_hub.draws import generator
from phard_hub.errors import ImagesError, InputError, NotEvaluatedError
from phard_hub.hardware import fast_autocast
from phard_hub.images import LabelledImages
from phard_hub.job import Progress, seed_of_piece, shared, silent
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.predictions import predictions
from phard_hub.report.distances import Rate
from phard_hub.report.record import AttackOutcome, Evaluation, Rating, RobustAccuracy
from phard_hub.report.statistics import drop, rate
from phard_hub.report.trial import NaturalTrigger
from phard_hub.report.wording import no_better_than_chance
from phard_hub.settings import Share, settings
from phard_hub.training.ascent import ascended
from phard_hub.triggers.bank import Trigger, change_size


@settings
class Threat:
    """A known trigger and the class that it is meant to produce.

    ``natural`` is its success on the model before it was planted, where that is known.
    """

    name: str
    trigger: Trigger
    target: NonNegativeInt
    natural: Rate | None = None

    @classmethod
    def read(cls, folder: Path) -> Threat:
        """The backdoor in a folder that `phard plant` or `phard compare` wrote.

        Raises:
            BackdoorError: the folder has none, or the files are broken.
            NotEvaluatedError: the backdoor did not work when it was planted.
        """
        backdoor, attack = read_working(folder)
        return cls(name=attack.name, trigger=attack, target=backdoor.target, natural=backdoor.success[0])


@settings
class PGD:
    """Projected gradient descent in the L-infinity ball with a random start (Madry et al., 2018).

    Attributes:
        epsilon: radius, pixels in [0, 1].
        steps: gradient steps.
        step_size: of each, pixels in [0, 1].
        images: at most so many images are attacked.
        smaller: radii that are tried before, ascending. What falls at one falls at every larger one, so an image is
            attacked until it falls.
    """

    epsilon: Share = 8 / 255
    smaller: tuple[Share, ...] = (0.5 / 255, 1 / 255, 2 / 255)
    steps: PositiveInt = 20
    step_size: NonNegativeFloat = 2 / 255
    images: NonNegativeInt = 1000

    def __str__(self) -> str:
        """Name in tables and on the card."""
        return f"PGD-{self.steps}, Linf {255 * self.epsilon:g}/255"

    def perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
        """The worst pixels that were found within the ball, ``(N, C, H, W)`` in [0, 1]."""
        start = (torch.rand(pixels.shape, generator=random) * 2 - 1) * self.epsilon

        def loss(moved: Tensor) -> Tensor:
            with fast_autocast(pixels.device):
                logits = classifier(moved)
            return functional.cross_entropy(logits.float(), labels)

        begin = (pixels + start.to(pixels)).clamp(0, 1)
        return ascended(loss, begin, pixels, epsilon=self.epsilon, step_size=self.step_size, steps=self.steps)


def evaluate(
    classifier: Classifier,
    images: LabelledImages,
    threats: Sequence[Threat] = (),
    *,
    pgd: PGD | None = None,
    reference: Classifier | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Accuracy, robust accuracy, and the outcome of each threat; the classifier is left as it was.

    Args:
        classifier: what is judged.
        images: test images.
        threats: known triggers, judged on images that are not of their target class.
        pgd: the attack behind the robust accuracy; None leaves it out.
        reference: a classifier without these backdoors; the same triggers are tried on it.
        seed: of the choice of images under attack and of where the attack starts.
        progress: called after each part.
    """
    parts = 1 + (pgd is not None) + len(threats)
    progress("evaluating", 0, parts)
    accuracy = _accuracy(classifier, images)
    progress("evaluating", 1, parts)
    robust = () if pgd is None else robust_accuracies(classifier, images, pgd, seed)
    outcomes = []
    for threat in threats:
        outcomes.append(attack_outcome(classifier, images, threat, reference=reference))
        progress("evaluating", parts - len(threats) + len(outcomes), parts)
    progress("evaluating", parts, parts)
    return Evaluation(
        accuracy=accuracy,
        robust_accuracy=robust[-1].accuracy if robust else None,
        robust_attack=robust[-1].attack if robust else "",
        robust_at=robust[:-1],
        attacks=tuple(outcomes),
    )


def predict(classifier: Classifier, images: LabelledImages, trigger: Trigger | None = None) -> tuple[Tensor, Tensor]:
    """Predicted classes ``(N,)`` and the L2 size of the trigger's change ``(N,)``, in full precision.

    Raises:
        CheckpointError: some logits are not finite, so they say nothing.
    """

    def seen(numbers: Tensor) -> list[Tensor]:
        pixels, _ = images.batch(numbers, classifier.device)
        with torch.no_grad():
            changed = pixels if trigger is None else trigger(pixels)
            size = change_size(changed, pixels).cpu()
        return [predictions(classifier, [changed]), size]

    predicted, sizes = shared(seen, torch.arange(len(images)), images.at_once)
    return predicted, sizes


def _accuracy(classifier: Classifier, images: LabelledImages) -> Rate:
    return _share(predict(classifier, images)[0] == images.labels)


def attack_outcome(
    classifier: Classifier, images: LabelledImages, threat: Threat, *, reference: Classifier | None = None
) -> AttackOutcome:
    """Attack success rate and recovered accuracy, on images that are not of the target class.

    Raises:
        ImagesError: there are no such images.
        InputError: the classifier has no such class.
    """
    if threat.target >= images.num_classes:
        problem = (
            f"The trigger {threat.name} produces class {threat.target}, but the last one is {images.num_classes - 1}."
        )
        raise InputError(problem, advice="Give a backdoor that was planted in a model of these classes.")
    others = images.take((images.labels != threat.target).nonzero().flatten())
    if len(others) == 0:
        raise ImagesError(
            f"All images of {images.source} are of class {images.names[threat.target]}, the target of {threat.name}.",
            advice="Give images of other classes too.",
        )
    predicted, sizes = predict(classifier, others, threat.trigger)
    beside = threat.natural
    if reference is not None:
        beside = _share(predict(reference, others, threat.trigger)[0] == threat.target)
    return AttackOutcome(
        name=threat.name,
        target=threat.target,
        success=_share(predicted == threat.target),
        recovered=_share(predicted == others.labels),
        reference=beside,
        size=float(sizes.mean()),
    )


def natural_vulnerability(
    classifier: Classifier,
    images: LabelledImages,
    families: Mapping[str, Sequence[Trigger]],
    *,
    progress: Progress = silent,
) -> tuple[NaturalTrigger, ...]:
    """The best that each family of triggers does to a classifier that was not trained on any of them.

    For each family, the trigger and the target class with the highest success rate on half of the images are
    chosen. The success is that on the other half, so that the choice does not flatter it.

    Args:
        classifier: what is judged; it is left as it was.
        images: test images.
        families: triggers to choose from, by the name of their family.
        progress: called after each family.

    Raises:
        ImagesError: there are too few images to divide.
    """
    choosing, judging = images.split(0.5)
    found = []
    for done, (name, triggers) in enumerate(families.items()):
        progress("trying attack families", done, len(families))
        rates = torch.stack([_target_rates(classifier, choosing, trigger) for trigger in triggers])
        best, target = divmod(int(rates.argmax()), images.num_classes)
        outcome = attack_outcome(classifier, judging, Threat(name=name, trigger=triggers[best], target=target))
        others = judging.take((judging.labels != target).nonzero().flatten())
        untouched = _share(predict(classifier, others)[0] == target)
        found.append(
            NaturalTrigger(name=name, target=target, success=outcome.success, untouched=untouched, size=outcome.size)
        )
    progress("trying attack families", len(families), len(families))
    return tuple(found)


def _target_rates(classifier: Classifier, images: LabelledImages, trigger: Trigger) -> Tensor:
    """For each class, the share of the stamped images of other classes that are taken for it, ``(K,)``."""
    predicted, _ = predict(classifier, images, trigger)
    return torch.stack(
        [(predicted[images.labels != k] == k).double().mean().nan_to_num(-1) for k in range(images.num_classes)]
    )


def defense_effectiveness(accuracy: tuple[Rate, Rate], success: tuple[Rate, Rate]) -> Rating:
    """The defense effectiveness rating (DER) of one attack, from (before, after) of the defense.

    ``DER = (max(0, drop of the success rate) - max(0, drop of the accuracy) + 1) / 2``, as defined by Zhu et al.,
    "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization" (FT-SAM), ICCV 2023, equation
    7; success is over images that are not of the target class there, too. The interval joins those of the two
    drops, as if they were independent.
    """
    (gain, gain_low, gain_high), (loss, loss_low, loss_high) = (
        tuple(max(0.0, bound) for bound in drop(*rates)) for rates in (success, accuracy)
    )
    value = (gain - loss + 1) / 2
    return Rating(
        value=value,
        n=success[1].n,
        low=max(0.0, value - math.hypot(gain - gain_low, loss_high - loss) / 2),
        high=min(1.0, value + math.hypot(gain_high - gain, loss - loss_low) / 2),
    )


def robust_accuracies(
    classifier: Classifier, images: LabelledImages, pgd: PGD, seed: int = 0
) -> tuple[RobustAccuracy, ...]:
    """Accuracy under PGD of each radius on at most ``pgd.images`` evenly drawn images; that of the largest is last."""
    left = torch.randperm(len(images), generator=generator(seed))[: pgd.images]
    count = len(left)
    found: list[RobustAccuracy] = []
    for radius in (*(each for each in pgd.smaller if each < pgd.epsilon), pgd.epsilon):
        scaled = replace(pgd, epsilon=radius, step_size=pgd.step_size * radius / pgd.epsilon if pgd.epsilon else 0.0)
        if len(left):
            left = left[_withstands(classifier, images, scaled, left, seed * 101 + len(found))]
        found.append(RobustAccuracy(attack=str(scaled), accuracy=rate(len(left), count)))
    return tuple(found)


def _withstands(classifier: Classifier, images: LabelledImages, pgd: PGD, rows: Tensor, seed: int) -> Tensor:
    """Whether the classifier is right about each of these images after the attack, ``(n,)``."""

    def withstood(numbers: Tensor) -> list[Tensor]:
        pixels, labels = images.batch(numbers, classifier.device)
        moved = pgd.perturb(classifier, pixels, labels, generator(seed_of_piece(seed, numbers)))
        return [predictions(classifier, [moved]) == labels.cpu()]

    with frozen(classifier):
        return shared(withstood, rows, images.at_once)[0]


def robust_accuracy(classifier: Classifier, images: LabelledImages, pgd: PGD, seed: int = 0) -> Rate:
    """Accuracy under PGD of its largest radius; see `robust_accuracies`."""
    return robust_accuracies(classifier, images, pgd, seed)[-1].accuracy


def require_better_than_chance(accuracy: Rate, classes: int) -> None:
    """Harden nothing that is no better than guessing, because its accuracy could not be guarded.

    Raises:
        NotEvaluatedError: it is not.
    """
    if accuracy.may_be_chance(classes):
        raise NotEvaluatedError(
            no_better_than_chance(accuracy, classes),
            advice="Check the class names, the image processor and the test images (more of them narrow the interval); "
            "--even-at-chance hardens all the same.",
        )


def _share(hits: Tensor) -> Rate:
    return rate(int(hits.sum()), len(hits))
