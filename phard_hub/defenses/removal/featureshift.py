"""Feature shift tuning: turn the head away from where it was, fine-tune fast, and what no image asks for is forgotten.

An own variant of Min et al., "Towards Stable Backdoor Purification through Feature Shift Tuning" (FST, NeurIPS 2023,
arXiv 2310.01875), which is `fst` as published. The head starts anew at random and is pushed away from the original one,

    cross-entropy + weight * <head, original head>,  with |head| = |original head|,

so the features of every class must move, and those of a backdoor, which no clean image keeps alive, get lost.

Deviations: the push lasts for the first steps only, after which the head is free, for accuracy returns sooner; the
learning rate is higher (0.06 instead of 0.01); and some images are stamped with triggers drawn at random, under their
own labels, which costs no search.
"""

from __future__ import annotations

from dataclasses import field

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from phard_hub.defenses.removal.finetuning import Forgetting, RandomlyStamped
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.head import Layer, heads
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule


@settings
class FeatureShift(Forgetting):
    """Fine-tuning from a head that was turned away, with random triggers.

    No image has a random trigger while the head is pushed.

    Attributes:
        weight: of the inner product with the original head. A network that does not end in a linear layer has no
            head, and is fine-tuned only.
        pushed: share of the steps in which the head is pushed away.
        passes: over the images that it is good for; with more it may learn them by heart, and is tried last of what
            comes before another defense.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(steps=2700, learning_rate=0.06))
    weight: NonNegativeFloat = 0.2
    pushed: Share = 0.03
    passes: PositiveFloat = 60.0

    name = "feature-shift"

    @property
    def least_images(self) -> int:
        """So many that the steps are no more than ``passes`` over them."""
        return round(self.schedule.steps * self.schedule.batch / self.passes)

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers, on the way by a head far from the original one."""
        del original, images, job
        return _Objective(self, copy)


class _Objective(RandomlyStamped):
    """The push on clean images, and after that cross-entropy on clean and randomly stamped ones."""

    def __init__(self, settings: FeatureShift, copy: Classifier) -> None:
        super().__init__(settings)
        self.pushed = round(settings.pushed * settings.schedule.steps)
        self.heads = TurnedAway(copy if self.pushed else None, settings.weight)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss on the batch; while the head is pushed, on clean images alone."""
        if batch.step >= self.pushed:
            return super().loss(model, batch)
        self.heads.keep_norm()
        return CrossEntropy.loss(self, model, batch) + self.heads.push()


class TurnedAway:
    """The heads of a classifier, drawn anew, and what pushes them away from where they were."""

    def __init__(self, classifier: Classifier | None, weight: float) -> None:
        self.weight = weight
        self.heads: list[tuple[Layer, Tensor]] = []
        for head in heads(classifier) if classifier is not None else ():
            self.heads.append((head, head.weight.detach().clone()))
            head.reset_parameters()

    def push(self) -> Tensor | float:
        """The loss that is larger the more the heads resemble the original ones."""
        return self.weight * sum((head.weight * original).sum() for head, original in self.heads)

    @torch.no_grad()
    def keep_norm(self) -> None:
        """Give the heads the length of the original ones."""
        for head, original in self.heads:
            head.weight.mul_(original.norm() / head.weight.norm())
