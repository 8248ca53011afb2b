"""What a defense is: settings that make a defended copy of a classifier, in the one training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

from accelerate import Accelerator
from torch import Tensor

from phard_hub.accuracy import points_lost, right_answers
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.progress import Progress, silent
from phard_hub.report.record import Hardening
from phard_hub.schedule import Schedule
from phard_hub.training import Course, Objective, train


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
    def first(self) -> tuple[Defense, ...]:
        """Defenses tried in turn until one does not clearly lose more accuracy than is allowed: by two standard errors.

        This one then defends its result.
        """
        return ()

    @property
    def least_images(self) -> int:
        """With fewer images it is not tried before another defense."""
        return 0

    def alone(self) -> Defense:
        """What is done where none of them came first."""
        return self

    def lasting(self, steps: int) -> Self:
        """The same for so many steps."""
        return replace(self, schedule=replace(self.schedule, steps=steps))

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
        """A defended copy of the classifier, and the record of how it was made, with what was tried first.

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
        watched, device = validation if self.guarded else None, accelerator.device

        def judged(model: Classifier) -> Tensor | None:
            return None if watched is None else right_answers(model.clone().to(device), watched, device)

        answers, start, defense, lost_before = judged(classifier), classifier, self, 0.0
        tried: list[Hardening] = []
        events: list[str] = []
        for first in self.first:
            if len(images) < first.least_images:
                events.append(
                    f"{first.name} was not tried: it takes {first.least_images} images, here are {len(images)}"
                )
                defense = self.alone()
                continue
            folder = checkpoint and checkpoint / first.name
            made, record = first.harden(
                classifier, images, accelerator, seed=seed, checkpoint=folder, progress=progress
            )
            tried.append(record)
            events.extend(record.events)
            now = judged(made)
            lost, doubt = points_lost(answers, now)
            if lost <= self.schedule.max_accuracy_loss + 2 * doubt:
                start, defense, lost_before = made, self, max(0.0, lost)
                if lost < 0:
                    answers = now  # what it gained is not there to be spent again
                break
            # No later step would bring it back, and between the two is nothing for the guard to stop at.
            events.append(f"{first.name} lost {lost:.1f} points of validation accuracy: went on without it")
            defense = self.alone()
        folder = checkpoint / self.name if checkpoint and self.first else checkpoint
        course = train(
            start,
            images,
            lambda copy, accelerator: defense.objective(start, copy, images, accelerator, seed),
            self.schedule,
            accelerator,
            seed=seed,
            validation=watched,
            reference=answers,
            lost_before=lost_before,
            checkpoint=folder,
            progress=progress,
            task=self.task,
        )
        events.extend(course.events)
        return course.classifier, self._record([*tried, course], events, seed, len(images))

    def _record(self, phases: Sequence[Course | Hardening], events: Sequence[str], seed: int, images: int) -> Hardening:
        return Hardening(
            defense=self.name,
            settings=asdict(self),
            seed=seed,
            images=images,
            curve=tuple(phases[-1].curve),
            events=tuple(events),
            sample_gradients=sum(phase.sample_gradients for phase in phases),
            sample_forwards=sum(phase.sample_forwards for phase in phases),
            seconds=sum(phase.seconds for phase in phases),
        )
