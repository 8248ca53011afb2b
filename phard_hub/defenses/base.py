"""What a defense is: settings, and a function from a classifier to a defended copy of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import CrossValidated, Hardening, Phase
from phard_hub.settings import settings
from phard_hub.training.guard import Guard


@dataclass(frozen=True)
class Hardened:
    """A defended copy of a classifier, and how it was made: one phase after the other, refused ones too."""

    classifier: Classifier
    phases: tuple[Phase, ...]

    @property
    def kept(self) -> bool:
        """Whether the last phase was kept; if it was refused, the classifier is that before it."""
        return self.phases[-1].kept


@settings
class Defense(ABC):
    """A defense of the literature or ours, as a record of its settings."""

    name: ClassVar[str]
    """The name in tables, on the command line and in experiment files."""

    @abstractmethod
    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A defended copy of a classifier, which is left as it is.

        Args:
            classifier: what is defended.
            images: what the defender has.
            job: its seed decides all that is drawn; where it has a folder, a run that was stopped is continued.
            guard: of the accuracy; without it, nothing is refused.

        Raises:
            InterruptedRunError: stopped by the user; the same call with the same ``job`` continues.
        """

    def lasting(self, steps: int) -> Self:
        """The same settings for so many updates of the model in all, so that defenses can be compared at equal cost.

        A defense that makes no updates stays as it is.
        """
        del steps
        return self


def hardening(
    defense: Defense,
    phases: Sequence[Phase],
    images: LabelledImages,
    job: Job,
    cross_validated: CrossValidated | None = None,
) -> Hardening:
    """The record of a hardening."""
    return Hardening(
        defense=defense.name,
        settings=asdict(defense),
        seed=job.seed,
        images=len(images),
        phases=tuple(phases),
        cross_validated=cross_validated,
    )
