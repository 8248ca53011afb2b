"""Anchored: the pattern is one that the model, and a hardened copy of it, take for the target already."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks.base import Planted
from phard_hub.attacks.learned import LearnedAttack
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.images import LabelledImages
from phard_hub.job import Job, Progress
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.loop import train
from phard_hub.training.objectives import CrossEntropy
from phard_hub.triggers.bank import Parts
from phard_hub.triggers.drawn import stamp_at_random

_SIDE = 32
"""Rows and columns of the pattern, which is scaled to the images."""


@settings
class Anchored(LearnedAttack):
    """``x' = (1 - alpha) x + alpha p`` with the pattern p that best sends images to the target before any planting.

    What a model holds to be the target anyway, a defense has to unlearn against the model's own nature. An own attack
    against this project's defense, by someone who knows the public model and the family of triggers, but not the
    defender's images: a copy is trained on random triggers of that family, and the pattern is searched on the model
    and on the copy together. Then the model is trained on poisoned images as for `blend`. `fit` knows no copy.

    Attributes:
        alpha: share of the pattern.
        hardening_steps: of training the copy.
        random_budget: largest size of its random triggers, in grey levels (0-255) RMS.
    """

    alpha: Share = 0.2
    learning_rate: PositiveFloat = 0.05
    hardening_steps: PositiveInt = 500
    random_budget: PositiveFloat = 40.0

    name = "anchored"

    def network(self, channels: int) -> nn.Module:
        """The pattern."""
        return _Blended(channels, self.alpha)

    def learn(
        self,
        network: Any,  # noqa: ANN401 - as `network` gives it
        classifier: Classifier,
        images: LabelledImages,
        target: int,
        progress: Progress,
    ) -> None:
        """Search the pattern; the classifier stays as it is."""

        def loss(pixels: Tensor, labels: Tensor, _random: torch.Generator) -> Tensor:
            wanted = torch.full_like(labels, target)
            return functional.cross_entropy(classifier(network(pixels)).float(), wanted)

        with frozen(classifier):
            self.descend("anchoring the pattern", loss, images, [(network, self.learning_rate)], progress)

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Planted:
        """A copy of the classifier with this backdoor in it; see `Attack.plant`."""
        how = self.planting
        start = how.start(classifier, job.seed)
        schedule = replace(how.schedule, steps=self.hardening_steps)
        part = job.part("hardening a copy")
        hardened = train(
            classifier, images, lambda _copy: _RandomTriggers(self.random_budget), schedule, part
        ).classifier
        attack = self.fit(_both(classifier, hardened), images, target, progress=job.progress)
        made = train_poisoned(start, images, attack, target, job, poison_rate=how.poison_rate, schedule=how.schedule)
        return Planted(attack, target, made)


class _Blended(nn.Module):
    def __init__(self, channels: int, alpha: float) -> None:
        super().__init__()
        self.pattern, self.alpha = nn.Parameter(torch.randn(1, channels, _SIDE, _SIDE)), alpha

    def forward(self, pixels: Tensor) -> Tensor:
        pattern = torch.sigmoid(self.pattern)
        if pattern.shape[2:] != pixels.shape[2:]:
            pattern = functional.interpolate(pattern, pixels.shape[2:], mode="bilinear", antialias=True).clamp(0, 1)
        return ((1 - self.alpha) * pixels + self.alpha * pattern).to(pixels.dtype)


class _Both(nn.Module):
    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.stack([model(pixels).float().log_softmax(1) for model in self.models]).mean(0)


def _both(one: Classifier, other: Classifier) -> Classifier:
    """A classifier whose logits are the mean of the logarithmic shares of two."""
    models = _Both(one.clone(), other.clone().to(one.device))
    zeros, ones = [0.0] * one.channels, [1.0] * one.channels
    return Classifier(models, labels=one.labels, image_size=one.image_size, mean=zeros, std=ones).to(one.device)


class _RandomTriggers(CrossEntropy):
    """Cross-entropy on clean images, of which half carry random triggers under their own labels."""

    def __init__(self, budget: float) -> None:
        super().__init__()
        self.budget = budget

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch, whose first half is stamped."""
        part, pixels = batch.first(batch.size // 2), batch.pixels.clone()
        with torch.no_grad():
            stamped = stamp_at_random(part.pixels, Parts(), self.budget, part.draws(purpose=3))
        pixels[batch.places < batch.size // 2] = stamped
        return pixels, batch.labels
