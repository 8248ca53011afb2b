"""Plain fine-tuning on clean images, the baseline that any other defense has to beat, and what others build on it."""

from __future__ import annotations

from dataclasses import field

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from phard_hub.defenses.trained import Trained
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published
from phard_hub.triggers.bank import Parts
from phard_hub.triggers.drawn import stamp_at_random


@settings
class FineTuning(Trained):
    """Train on clean images with their labels, in the same loop and for as long as the defense it is compared with."""

    name = "fine-tuning"

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> CrossEntropy:
        """Cross-entropy alone."""
        del original, copy, images, job
        return CrossEntropy()


@settings
class PublishedFineTuning(FineTuning):
    """Fine-tuning as BackdoorBench has it: plain SGD for a hundred passes over 5 % of CIFAR-10, and no guard."""

    schedule: Schedule = field(default_factory=lambda: as_published(1000, batch=256, learning_rate=0.01))

    name = "ft"
    guarded = False
    forgets = True


@settings
class Forgetting(Trained):
    """Fine-tuning with random triggers, of one kind or another: it removes what was planted.

    Class distances it leaves about as they are.

    Attributes:
        random: images with random triggers in a step, as a share of the clean ones.
        random_budget: their largest size, in grey levels (0-255) RMS.
        parts: what the random triggers are made of.
    """

    random: Share = 0.25
    random_budget: PositiveFloat = 40.0
    parts: Parts = field(default_factory=Parts)

    guarded = False
    forgets = True

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn at random.

        Raises:
            InputError: the triggers are to have a latent part.
        """
        if self.parts.latent:
            raise InputError("Triggers drawn at random have no latent part.", advice="Leave out parts.latent.")


class RandomlyStamped(CrossEntropy):
    """Cross-entropy on the batch and on a share of it again, stamped with triggers drawn at random: no search."""

    def __init__(self, settings: Forgetting) -> None:
        super().__init__()
        self.settings = settings

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss on all of them; a step draws the same triggers whenever it is asked."""
        settings, part = self.settings, batch.first(round(self.settings.random * batch.size))
        with torch.no_grad():
            stamped = stamp_at_random(part.pixels, settings.parts, settings.random_budget, part.draws(purpose=3))
        return super().loss(model, batch.with_more(stamped, part))
