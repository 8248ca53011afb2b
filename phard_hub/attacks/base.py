"""What an attack is: a trigger, and the way in which it gets into a model.

An attack is a frozen record of its parameters that can be called on pixels. `Attack.fit` gives the same
record with a key: whatever had to be learned or chosen before the trigger exists. Attacks of a fixed
formula have no key. Parameters and key are all that is needed to stamp the same images again.

`Attack.plant` makes a model with the backdoor. Most attacks train on poisoned images (see `poisoning`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from phard_hub.attacks.poisoning import Planting, train_poisoned
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job, Progress, silent
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Seed, settings


@settings
class Attack(ABC):
    """A backdoor trigger of the literature.

    Attributes:
        seed: of the trigger, where it is drawn: it is a part of what the trigger is, whatever the seed of a job.
        planting: how a model is trained to obey the trigger.
        key: what `fit` found, by name; empty for attacks of a fixed formula.
    """

    seed: Seed = 0
    planting: Planting = field(default_factory=Planting)
    key: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    clean_label: ClassVar[bool] = False
    """Whether only images of the target class are stamped, so that every label stays true."""
    stronger: ClassVar[str] = "Plant it again, with more steps or a higher poison rate."
    """What to do where the backdoor did not work."""
    poison_rate: ClassVar[float] = 0.1
    """Share of images that carry the trigger: of all, or of the target class where labels stay true."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in tables and on the command line."""

    @abstractmethod
    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]; shape and range are kept."""

    def in_training(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """What poisoned images ``(N, C, H, W)`` show in training; mostly the same as later."""
        del random
        return self(pixels)

    @property
    def cover_ratio(self) -> float:
        """Cover images for each stamped one."""
        return 0.0

    def cover(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """Near misses ``(N, C, H, W)`` that keep their true label in training."""
        del random
        return pixels

    def fit(self, classifier: Classifier, images: LabelledImages, target: int, *, progress: Progress = silent) -> Self:
        """This attack with its key, ready to stamp; an attack of a fixed formula is ready as it is.

        Args:
            classifier: what the backdoor will be planted in; it is left as it is.
            images: the attacker's training images.
            target: the class that the trigger is meant to produce.
            progress: called after each step of learning.
        """
        del classifier, images, target, progress
        return self

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Planted:
        """A copy of the classifier with this backdoor in it: fit the trigger, then train on poisoned images.

        Args:
            classifier: what it is planted in; it is left as it is.
            images: the attacker's.
            target: the class that the trigger is meant to produce.
            job: its seed is that of the weights drawn anew and of the batches; a state of it is continued.
        """
        how = self.planting
        start = how.start(classifier, job.seed)
        attack = self.fit(start, images, target, progress=job.progress)
        made = train_poisoned(start, images, attack, target, job, poison_rate=how.poison_rate, schedule=how.schedule)
        return Planted(attack, target, made)

    def fits(self) -> bool:
        """Whether the key is one that `fit` may find with these parameters; an attack of a fixed formula has none."""
        return not self.key

    def parameters(self) -> dict[str, Any]:
        """The fields without the key, as plain values."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "key"}
        return values | {"planting": asdict(self.planting)}

    def needed(self, name: str) -> Tensor:
        """One entry of the key.

        Raises:
            InputError: the attack has no key yet.
        """
        if name not in self.key:
            raise InputError(f"{self.name} has no key to stamp with.", advice="Use what its fit() returns.")
        return self.key[name]


@dataclass(frozen=True)
class Planted:
    """A model with a backdoor: the attack with its key, the class that it produces, and the classifier."""

    attack: Attack
    target: int
    classifier: Classifier


def other_images(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Another image for each: the batch mirrored, and in another order."""
    count = len(pixels)
    away = int(torch.randint(1, count, (1,), generator=random)) if count > 1 else 0
    return pixels.roll(away, 0).flip(3)
