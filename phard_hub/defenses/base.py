"""What a defense is: settings that make a defended copy of a classifier, in the one training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor

from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.progress import Progress, silent
from phard_hub.report.record import Hardening
from phard_hub.training import Course, Objective, Schedule, points_lost, right_answers, train


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

    @property
    def first(self) -> Defense | None:
        """A defense that comes first; this one then defends its result, unless that lost too much accuracy."""
        return None

    def alone(self) -> Defense:
        """What is done where the first defense was no use."""
        return self

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
            checkpoint: folder for the state of the run; an existing one is continued.
            progress: told about each step.

        Raises:
            InterruptedRunError: stopped by the user; the same call with the same ``checkpoint`` continues.
        """
        start, defense, before = classifier, self, None
        watched = validation if self.guarded else None
        device = accelerator.device
        answers = None if watched is None else right_answers(classifier.clone().to(device), watched, device)
        if self.first is not None:
            start, before = self.first.harden(
                classifier,
                images,
                accelerator,
                seed=seed,
                validation=watched,
                checkpoint=checkpoint and checkpoint / self.first.name,
                progress=progress,
            )
            checkpoint = checkpoint and checkpoint / self.name
            if refused := self._refused(answers, start, watched, device):
                start, defense = classifier, self.alone()
                before = before.model_copy(update={"events": (*before.events, refused)})
        course = train(
            start,
            images,
            lambda copy, accelerator: defense.objective(start, copy, images, accelerator, seed),
            self.schedule,
            accelerator,
            seed=seed,
            validation=watched,
            reference=answers,
            checkpoint=checkpoint,
            progress=progress,
            task=self.task,
        )
        return course.classifier, self._record(before, course, seed, len(images))

    def _record(self, before: Hardening | None, course: Course, seed: int, images: int) -> Hardening:
        phases: list[Course | Hardening] = [course] if before is None else [before, course]
        return Hardening(
            defense=self.name,
            settings=asdict(self),
            seed=seed,
            images=images,
            curve=tuple(course.curve),
            events=tuple(event for phase in phases for event in phase.events),
            sample_gradients=sum(phase.sample_gradients for phase in phases),
            sample_forwards=sum(phase.sample_forwards for phase in phases),
            seconds=sum(phase.seconds for phase in phases),
        )

    def _refused(
        self, answers: Tensor | None, start: Classifier, validation: LabelledImages | None, device: torch.device
    ) -> str | None:
        """Why what the first defense made is no start for this one, if it is none; ``answers`` were right before it.

        No later step would bring its accuracy back, and between the two is nothing for the guard to stop at.
        """
        if answers is None or validation is None or self.first is None:
            return None
        lost, doubt = points_lost(answers, right_answers(start.clone().to(device), validation, device))
        if lost <= self.schedule.max_accuracy_loss + doubt:
            return None
        return f"{self.first.name} lost {lost:.1f} points of validation accuracy: went on without it"
