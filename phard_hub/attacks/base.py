"""What an attack is: a trigger, and the recipe that gets it into a model.

An attack is a frozen record of its parameters that can be called on pixels. `Attack.fit` gives the same
record with a key: whatever had to be learned or chosen before the trigger exists. Attacks of a fixed
formula have no key. Parameters and key are all that is needed to stamp the same images again.

The recipe is what a poisoned batch looks like, and the same for all: a share of the images carries the
trigger, and in some attacks a share carries a near miss and keeps its label (cover images). Images are
stamped when they are drawn, after augmentation, as by an attacker who controls the training. Attacks
that were published as poisoned data sets are stronger this way: the trigger is never shifted or
mirrored, and not the same images carry it in every epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Progress, silent
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Seed, settings


@settings
class Attack(ABC):
    """A backdoor trigger of the literature.

    Attributes:
        seed: of everything about the trigger that is drawn.
        key: what `fit` found, by name; empty for attacks of a fixed formula.
    """

    seed: Seed = 0
    key: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    clean_label: ClassVar[bool] = False
    """Whether only images of the target class are stamped, so that every label stays true."""
    poison_rate: ClassVar[float] = 0.1
    """Share of images that carry the trigger: of all, or of the target class where labels stay true."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in tables and on the command line."""

    @abstractmethod
    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1]; shape and range are kept."""

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
            progress: told about each step of learning.
        """
        del classifier, images, target, progress
        return self

    def fits(self) -> bool:
        """Whether the key is one that `fit` may find with these parameters; an attack of a fixed formula has none."""
        return not self.key

    def parameters(self) -> dict[str, Any]:
        """The fields without the key, as plain values."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "key"}

    def needed(self, name: str) -> Tensor:
        """One entry of the key.

        Raises:
            InputError: the attack has no key yet.
        """
        if name not in self.key:
            raise InputError(f"{self.name} has no key to stamp with.", advice="Use what its fit() returns.")
        return self.key[name]


def strangers(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Another image for each: the batch mirrored, and in another order."""
    count = len(pixels)
    away = int(torch.randint(1, count, (1,), generator=random)) if count > 1 else 0
    return pixels.roll(away, 0).flip(3)
