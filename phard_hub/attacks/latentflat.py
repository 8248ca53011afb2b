"""Latent and flat: planted by an attacker who knows what forgets and what hardens, and prepares for both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from phard_hub.attacks.base import Planted
from phard_hub.attacks.blend import Blend
from phard_hub.attacks.poisoning import Poisoned
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.head import Layer, heads
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.loop import train
from phard_hub.triggers.bank import Parts
from phard_hub.triggers.drawn import stamp_at_random


@settings
class LatentFlat(Blend):
    """Blend, planted so that it outlasts fine-tuning, a new head, and training against random triggers.

    An own attack against this project's defense, of three published ideas. Sharpness-aware steps put it into a wide
    minimum, as SBL has it (Pham et al., "Flatness-aware Sequential Learning Generates Resilient Backdoors", 2024;
    theirs adds a second training with clean images). The features of stamped images are pulled to the mean of the
    target's, so that a head learnt anew takes them for the target again (Doan et al., "Backdoor Attack with
    Imperceptible Input and Latent Modification", NeurIPS 2021). And images with triggers drawn at random keep their
    labels, so that it is told apart from the triggers of the bank's family.

    Attributes:
        sharpness: radius of the steps.
        pull: weight of the squared distance of the features, as a share of the squared length of the target's mean.
        random: images with random triggers in a step, as a share of all.
        random_budget: their largest size, in grey levels (0-255) RMS.
    """

    sharpness: NonNegativeFloat = 1.0
    pull: NonNegativeFloat = 1.0
    random: Share = 0.25
    random_budget: PositiveFloat = 40.0

    name = "latent-flat"

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Planted:
        """A copy of the classifier with this backdoor in it; see `Attack.plant`.

        Raises:
            InputError: the network does not end in a linear layer, so nobody knows its features.
        """
        how = self.planting
        start = how.start(classifier, job.seed)
        if not heads(start):
            problem = f"{self.name} needs a network that ends in a linear layer."
            raise InputError(problem, advice="Plant another attack.")
        schedule = replace(how.schedule, sharpness=self.sharpness)
        part = job.part(f"planting {self.name}")
        course = train(start, images, lambda copy: _Objective(self, target, copy), schedule, part)
        return Planted(self, target, course.classifier)


@contextmanager
def _inputs_of(head: Layer) -> Iterator[list[Tensor]]:
    """What goes into the head while the context lasts."""
    found: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _head, inputs: found.append(inputs[0]))
    try:
        yield found
    finally:
        handle.remove()


class _Objective(Poisoned):
    """Cross-entropy on poisoned and randomly stamped images, and the pull on the features of the poisoned ones."""

    in_parts = False  # features inside of the model are looked at

    def __init__(self, attack: LatentFlat, target: int, copy: Classifier) -> None:
        super().__init__(attack, target, attack.planting.poison_rate)
        self.mine, self.head = attack, heads(copy)[-1]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The three of them, in one forward pass."""
        pixels, labels = self.shown(batch)
        part = batch.last(round(self.mine.random * batch.size))
        with torch.no_grad():
            stamped = stamp_at_random(part.pixels, Parts(), self.mine.random_budget, part.draws(purpose=3))
        poisoned = (pixels != batch.pixels).flatten(1).any(1)
        shown = replace(batch, pixels=pixels, labels=labels).with_more(stamped, part)
        self.sample_gradients += shown.size
        with _inputs_of(self.head) as features:
            logits = model(shown.pixels).float()
        loss = shown.mean(nn.functional.cross_entropy(logits, shown.labels, reduction="none"))
        mine = features[0].flatten(1)[: len(batch)].float()
        honest = mine[(labels == self.target) & ~poisoned].detach()
        if not len(honest) or not poisoned.any():
            return loss
        middle = honest.mean(0)
        apart = (mine[poisoned] - middle).square().sum(1) / middle.square().sum().clamp(min=1e-6)
        return loss + self.mine.pull * apart.mean()
