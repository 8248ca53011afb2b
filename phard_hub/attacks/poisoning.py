"""Plant a backdoor by training on poisoned images, as an attacker who controls the training would.

The recipe is what a poisoned batch looks like, and the same for all attacks: a share of the images carries the
trigger, and in some attacks a share carries a near miss and keeps its label (cover images). Images are stamped when
they are drawn, after augmentation. Attacks that were published as poisoned data sets are stronger this way: the trigger
is never shifted or mirrored, and not the same images carry it in every epoch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from phard_hub.draws import generator
from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.fresh import reinitialised
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.loop import train
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule

if TYPE_CHECKING:
    from phard_hub.attacks.base import Attack

POISONING = Schedule(steps=600, batch=128, learning_rate=0.05)


@settings
class Planting:
    """How a backdoor is trained into a model.

    Attributes:
        poison_rate: share of the images of a batch that carry the trigger, or of its images of the target class where
            labels stay true; None takes the attack's own.
        from_scratch: whether the weights are drawn anew first, so that the model never was without the backdoor.
        steps: of training.
        learning_rate: peak of it.
    """

    poison_rate: Share | None = None
    from_scratch: bool = False
    steps: PositiveInt = 1000
    learning_rate: PositiveFloat = POISONING.learning_rate

    @property
    def schedule(self) -> Schedule:
        """How long and how fast is trained."""
        return replace(POISONING, steps=self.steps, learning_rate=self.learning_rate)

    def start(self, classifier: Classifier, seed: int) -> Classifier:
        """What is trained: the classifier itself, or a copy with weights drawn anew."""
        return reinitialised(classifier, seed) if self.from_scratch else classifier


def train_poisoned(
    classifier: Classifier,
    images: LabelledImages,
    attack: Attack | None,
    target: int,
    job: Job,
    *,
    poison_rate: float | None = None,
    few: LabelledImages | None = None,
    schedule: Schedule = POISONING,
) -> Classifier:
    """A copy trained on poisoned batches; with no attack, on honest ones.

    Args:
        classifier: the start; it is left as it is.
        images: what is trained on.
        attack: the backdoor, with its key (see `Attack.fit`).
        target: the class that stamped images are taught to be.
        job: its seed is that of the batches; a state of it is continued.
        poison_rate: as in `Planting`.
        few: the only images that carry the trigger, one in each batch; None where the batch's own do.
        schedule: how long and how fast is trained.
    """
    part = job.part(f"planting {attack.name}" if attack else "training")
    objective = Poisoned(attack, target, poison_rate, few)
    return train(classifier, images, lambda _copy: objective, schedule, part).classifier


class Poisoned(CrossEntropy):
    """Cross-entropy on partly poisoned batches."""

    def __init__(
        self, attack: Attack | None, target: int, poison_rate: float | None, few: LabelledImages | None = None
    ) -> None:
        super().__init__()
        self.attack, self.target, self.poison_rate, self.few = attack, target, poison_rate, few

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch after poisoning; a recipe looks at the batch as a whole."""
        if self.attack is None:
            return batch.pixels, batch.labels
        whole, random = batch.whole(), batch.draws(purpose=1).random
        with torch.no_grad():
            if self.few is None:
                pixels, labels = poison(self.attack, whole.pixels, whole.labels, self.target, self.poison_rate, random)
            else:
                one, _ = self.few.batch(torch.randint(len(self.few), (1,), generator=random), whole.pixels.device)
                pixels, labels = whole.pixels.clone(), whole.labels.clone()
                pixels[:1], labels[:1] = self.attack(one), self.target
        return pixels[batch.places], labels[batch.places]


def poisonable(images: LabelledImages, attack: Attack, target: int, count: int, seed: int) -> LabelledImages:
    """A few images that the attack would put its trigger on: of the target class where labels stay true, else others.

    Raises:
        ImagesError: there is none.
    """
    mine = images.labels == target
    others = (mine if attack.clean_label else ~mine).nonzero().flatten()
    if not len(others):
        problem = f"{images.source} has no image that {attack.name} would put its trigger on."
        raise ImagesError(problem, advice="Give images of all classes.")
    return images.take(others[torch.randperm(len(others), generator=generator(seed))[:count]])


def poison(
    attack: Attack, pixels: Tensor, labels: Tensor, target: int, poison_rate: float | None, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A poisoned copy of a batch whose images are in random order.

    Args:
        attack: whose recipe it is.
        pixels: ``(N, C, H, W)`` in [0, 1].
        labels: ``(N,)``.
        target: label of the stamped images.
        poison_rate: as in `Planting`; at least one image is stamped where one may be.
        random: what poisoned and cover images are drawn from.
    """
    rate = attack.poison_rate if poison_rate is None else poison_rate
    every = torch.arange(len(labels), device=labels.device)
    eligible = every[labels == target] if attack.clean_label else every
    stamped = eligible[: max(1, round(rate * len(eligible)))]
    left = every[~torch.isin(every, stamped)]
    covered = left[: round(attack.cover_ratio * len(stamped))]
    pixels, labels = pixels.clone(), labels.clone()
    if len(stamped):
        pixels[stamped] = attack.in_training(pixels[stamped], random)
        labels[stamped] = target
    if len(covered):
        pixels[covered] = attack.cover(pixels[covered], random)
    return pixels, labels
