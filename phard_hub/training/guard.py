"""The accuracy guard: what a model knew, and how much of it was lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.models.predictions import right_answers
from phard_hub.report.statistics import drop, rate

DOUBTS = 3.0
"""Standard errors by which accuracy is clearly lost.

With two, chance on 250 images refuses one defense in about twenty. What makes a model forget planted backdoors is not
refused lightly, because they stay without it.
"""


class Loss(NamedTuple):
    """Accuracy that was lost on the validation images.

    Attributes:
        points: of percent; below 0 where accuracy was gained.
        doubt: the standard error of that.
        accuracy: what is left, in [0, 1].
        at_most: points that may have been lost, by the upper end of the 95 % interval of the paired difference.
        strict: whether that decides.
    """

    points: float
    doubt: float
    accuracy: float
    at_most: float
    strict: bool

    def is_clear(self, limit: float) -> bool:
        """Whether more than ``limit`` points were lost, beyond chance: by `DOUBTS` standard errors.

        A strict guard asks whether they may have been.
        """
        return self.at_most > limit if self.strict else self.points > limit + DOUBTS * self.doubt

    def is_within(self, limit: float) -> bool:
        """Whether at most ``limit`` points were lost on these images; of a strict guard, on any."""
        return (self.at_most if self.strict else self.points) <= limit


@dataclass(frozen=True)
class Guard:
    """The validation images, and which of them the model was right about.

    Attributes:
        images: nothing is trained on them.
        known: 1.0 for each image that the model was right about and 0.0 for each other one, shape (n,).
        device: where classifiers are asked.
        lost_before: points that what is guarded from here on has lost already, compared with ``known``.
        strict: whether accuracy counts as kept only where these images show it, and not as long as they do not show
            that it was lost. Few images show little: then a defense goes only a small part of its way, or none.
    """

    images: LabelledImages
    known: Tensor
    device: torch.device
    lost_before: float = 0.0
    strict: bool = False

    @classmethod
    def of(cls, classifier: Classifier, images: LabelledImages, device: torch.device, *, strict: bool = False) -> Guard:
        """Guard what this classifier knows about these images."""
        return cls(images, right_answers(classifier.clone().to(device), images), device, strict=strict)

    def look(self, classifier: Classifier) -> Loss:
        """What a classifier has lost."""
        return self._loss(self._answers(classifier))

    def going_on_from(self, classifier: Classifier) -> Guard:
        """The guard of what goes on from a classifier: what it gained is guarded too, and its loss is not its own."""
        answers = self._answers(classifier)
        lost = self._loss(answers).points
        return replace(self, known=answers if lost < 0 else self.known, lost_before=max(0.0, lost))

    def _answers(self, classifier: Classifier) -> Tensor:
        return right_answers(classifier.clone().to(self.device), self.images)

    def _loss(self, answers: Tensor) -> Loss:
        return loss_between(self.known, answers, strict=self.strict)


def loss_between(before: Tensor, after: Tensor, *, strict: bool = False) -> Loss:
    """What was lost, from right answers (1.0) and wrong ones (0.0) to the same images, ``(n,)`` each."""
    lost, gained = (int((one > other).sum()) for one, other in ((before, after), (after, before)))
    # Wilson's intervals of both, joined as Newcombe joins them: sound with few images and no differences, too.
    _, _, most = drop(rate(lost, len(after)), rate(gained, len(after)))
    return Loss(*points_lost(before, after), float(after.mean()), 100 * most, strict)


def points_lost(before: Tensor | None, after: Tensor | None) -> tuple[float, float]:
    """Points of accuracy that were lost, and the standard error of that, from right answers to the same images.

    Where nobody looked, nothing is known to be lost.
    """
    if before is None or after is None:
        return 0.0, 0.0
    change = 100 * (before - after)
    return float(change.mean()), float(change.std(correction=0) / len(change) ** 0.5)
