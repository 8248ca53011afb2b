"""What a defense is: settings that make a defended copy of a classifier, in the one training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from accelerate import Accelerator

from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.progress import Progress, silent
from phard_hub.report.record import Hardening
from phard_hub.training import Objective, Schedule, train


@dataclass(frozen=True, kw_only=True)
class Defense(ABC):
    """A defense of the literature or ours, as a record of its settings.

    Attributes:
        schedule: of the training loop.
    """

    schedule: Schedule = field(default_factory=Schedule)

    name: ClassVar[str]
    """The name in tables and experiment files."""
    task: ClassVar[str] = "hardening"
    """What its progress is called."""
    guarded: ClassVar[bool] = True
    """Whether the accuracy guard watches it; not where the accuracy has to fall first, with no way back."""

    @abstractmethod
    def objective(
        self, original: Classifier, copy: Classifier, images: LabelledImages, accelerator: Accelerator, seed: int
    ) -> Objective:
        """What the copy is trained for; the original is left as it is."""

    def harden(
        self,
        classifier: Classifier,
        images: LabelledImages,
        accelerator: Accelerator,
        *,
        seed: int = 0,
        validation: LabelledImages | None = None,
        reference: Classifier | None = None,
        checkpoint: Path | None = None,
        progress: Progress = silent,
    ) -> tuple[Classifier, Hardening]:
        """A defended copy of the classifier, and the record of how it was made.

        Args:
            classifier: what is defended; it is left as it is.
            images: what the copy is trained on.
            accelerator: of accelerate.
            seed: of everything that is drawn.
            validation: what the accuracy guard looks at; without it there is no guard.
            reference: whose accuracy the guard compares with; None takes that of the classifier.
            checkpoint: folder for the state of the run; an existing one is continued.
            progress: told about each step.

        Raises:
            InterruptedRunError: stopped by the user; the same call with the same ``checkpoint`` continues.
        """
        course = train(
            classifier,
            images,
            lambda copy, accelerator: self.objective(classifier, copy, images, accelerator, seed),
            self.schedule,
            accelerator,
            seed=seed,
            validation=validation if self.guarded else None,
            reference=reference,
            checkpoint=checkpoint,
            progress=progress,
            task=self.task,
        )
        record = Hardening(
            defense=self.name,
            settings=asdict(self),
            seed=seed,
            images=len(images),
            curve=tuple(course.curve),
            events=tuple(course.events),
            sample_gradients=course.sample_gradients,
            sample_forwards=course.sample_forwards,
            seconds=course.seconds,
        )
        return course.classifier, record
