"""SBL: planted in a wide minimum, and then fine-tuned by the attacker so that fine-tuning does not leave it again."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks.base import Planted
from phard_hub.attacks.blend import Blend
from phard_hub.attacks.poisoning import poison, train_poisoned
from phard_hub.draws import generator
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings
from phard_hub.training.batches import Batch
from phard_hub.training.loop import train
from phard_hub.training.objectives import CrossEntropy

_MOST = 100.0
"""The largest weight of a parameter, in units of the mean one: a few would make the steps diverge."""


@settings
class Sbl(Blend):
    """Blend, planted in two trainings: with sharpness-aware steps, then on clean images with the weights held.

    What a defender's fine-tuning would do is done by the attacker first, while each weight is held back as much as the
    backdoor depends on it. The minimum that is found is one that clean images have already agreed to.

    Source: Pham et al., "Flatness-aware Sequential Learning Generates Resilient Backdoors", ECCV 2024, with elastic
    weight consolidation (Kirkpatrick et al., 2017) in the second training. Deviations: an own trigger, `blend`'s, and
    the diagonal of the Fisher information has a mean of one and is cut at a hundred times that.

    Attributes:
        sharpness: radius of the steps of the first training.
        clean_steps: of the second training.
        clean_rate: its peak of the learning rate, as a share of that of the first one.
        stiffness: how strongly the weights are held in it.
        fisher_images: images that say which weights the backdoor depends on.
    """

    sharpness: NonNegativeFloat = 1.0
    clean_steps: NonNegativeInt = 400
    clean_rate: NonNegativeFloat = 0.2
    stiffness: NonNegativeFloat = 0.1
    fisher_images: PositiveInt = 200

    name = "sbl"

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Planted:
        """A copy of the classifier with this backdoor in it; see `Attack.plant`."""
        how = self.planting
        start = how.start(classifier, job.seed)
        first = replace(how.schedule, sharpness=self.sharpness)
        second = replace(how.schedule, steps=self.clean_steps, learning_rate=self.clean_rate * how.learning_rate)
        planted = train_poisoned(start, images, self, target, job, poison_rate=how.poison_rate, schedule=first)
        held = self._fisher(planted, images, target, job.seed)
        made = train(
            planted,
            images,
            lambda copy: _Held(copy, planted, held, self.stiffness),
            second,
            job.part(f"consolidating {self.name}"),
        )
        return Planted(self, target, made.classifier)

    def _fisher(self, planted: Classifier, images: LabelledImages, target: int, seed: int) -> dict[str, Tensor]:
        """How much the answers to poisoned images depend on each weight; the mean over all weights is one."""
        model, random = planted.clone().eval().requires_grad_(True), generator(seed)
        chosen = torch.randperm(len(images), generator=random)[: self.fisher_images]
        with torch.no_grad():
            shown = poison(self, *images.batch(chosen, planted.device), target, self.planting.poison_rate, random)
        names, weights = zip(*model.named_parameters(), strict=True)
        squares = [torch.zeros_like(weight) for weight in weights]
        for pixels, label in zip(*(each.split(1) for each in shown), strict=True):
            loss = functional.cross_entropy(model(pixels).float(), label)
            for square, gradient in zip(squares, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                square += 0 if gradient is None else gradient.square()
        mean = sum(float(square.sum()) for square in squares) / sum(square.numel() for square in squares)
        return {name: (square / max(mean, 1e-12)).clamp(max=_MOST) for name, square in zip(names, squares, strict=True)}


class _Held(CrossEntropy):
    """Cross-entropy on clean images, and what it costs to move the weights that the backdoor depends on."""

    in_parts = False  # the weights are held once in a step

    def __init__(self, copy: Classifier, planted: Classifier, held: dict[str, Tensor], stiffness: float) -> None:
        super().__init__()
        self.copy, self.held, self.stiffness = copy, held, stiffness
        self.start = {name: weight.detach().clone() for name, weight in planted.named_parameters()}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Both of them."""
        moved = [
            (self.held[name].to(weight) * (weight - self.start[name].to(weight)).square()).sum()
            for name, weight in self.copy.named_parameters()
        ]
        return super().loss(model, batch) + self.stiffness / 2 * torch.stack(moved).sum()
