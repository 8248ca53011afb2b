"""What a defense is: settings that make a defended copy of a classifier, in the one training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import torch
from accelerate import Accelerator
from torch import Tensor

from phard_hub.accuracy import points_lost, right_answers
from phard_hub.images import LabelledImages
from phard_hub.interpolation import part_of_the_way
from phard_hub.models.classifier import Classifier
from phard_hub.progress import Progress, silent
from phard_hub.report.record import Hardening
from phard_hub.schedule import Schedule
from phard_hub.training import Course, Objective, train

DOUBTS = 3.0
"""Standard errors by which accuracy is clearly lost. With two, chance on 250 images refuses one defense in about
twenty, and what planted backdoors are forgotten by is not refused lightly: without it they stay."""


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

    complete: ClassVar[bool] = False
    """Whether nothing comes after it, where it was tried before another defense."""

    @property
    def first(self) -> tuple[Defense, ...]:
        """Defenses tried in turn until one does not clearly lose more accuracy than is allowed: by `DOUBTS`.

        This one then defends its result. One that is `complete` is the result, as far on its way as that allows.
        """
        return ()

    @property
    def least_images(self) -> int:
        """With fewer images it is tried last of those that come before another defense."""
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
            checkpoint: folder for the states of the job's trainings; those that are there are continued.
            progress: told about each step.

        Raises:
            InterruptedRunError: stopped by the user; the same call with the same ``checkpoint`` continues.
        """
        begun = _Beginning(classifier, self, validation if self.guarded else None, accelerator.device)
        for first in sorted(self.first, key=lambda each: len(images) < each.least_images):
            made, record = first.harden(
                classifier, images, accelerator, seed=seed, checkpoint=checkpoint, progress=progress
            )
            begun.look_at(first, made, record)
            if begun.taken:
                break
        if begun.taken and begun.taken.complete:
            return begun.start, self._record(begun, [], seed, len(images))
        course = train(
            begun.start,
            images,
            lambda copy, accelerator: begun.defense.objective(begun.start, copy, images, accelerator, seed),
            begun.defense.schedule,
            accelerator,
            seed=seed,
            validation=begun.validation,
            reference=begun.reference,
            lost_before=begun.lost,
            checkpoint=checkpoint and checkpoint / self.name,
            progress=progress,
            task=self.task,
        )
        return course.classifier, self._record(begun, [course], seed, len(images))

    def _record(self, begun: _Beginning, courses: Sequence[Course], seed: int, images: int) -> Hardening:
        phases: list[Course | Hardening] = [*begun.tried, *courses]
        return Hardening(
            defense=self.name,
            settings=asdict(self),
            seed=seed,
            images=images,
            curve=tuple(phases[-1].curve),
            events=(*begun.events, *(event for course in courses for event in course.events)),
            forgotten=begun.taken is not None if begun.tried else None,
            sample_gradients=sum(phase.sample_gradients for phase in phases),
            sample_forwards=sum(phase.sample_forwards for phase in phases),
            seconds=sum(phase.seconds for phase in phases),
        )


class _Beginning:
    """What came before a defense: what was tried, which of it was taken, and where that leaves the accuracy.

    Looking at the validation images is the costly part: each model is asked about them once.
    """

    def __init__(
        self, classifier: Classifier, defense: Defense, validation: LabelledImages | None, device: torch.device
    ) -> None:
        self.start, self.last, self.validation, self.device = classifier, defense, validation, device
        self.reference, self.lost = self._answers(classifier), 0.0
        self.taken: Defense | None = None
        self.tried: list[Hardening] = []
        self.events: list[str] = []

    @property
    def defense(self) -> Defense:
        """What goes on from here."""
        return self.last if self.taken or not self.tried else self.last.alone()

    def look_at(self, first: Defense, made: Classifier, record: Hardening) -> None:
        """Take what it made unless that clearly lost too much accuracy; of a complete one, as much as does not."""
        self.tried.append(record)
        self.events.extend(record.events)
        whole = ""
        for share in (step / 20 for step in range(20, 14 if first.complete else 19, -1)):
            result = part_of_the_way(self.start, made, share)
            answers = self._answers(result)
            lost, doubt = points_lost(self.reference, answers)
            whole = whole or f"{first.name} lost {lost:.1f} points of validation accuracy"
            if lost <= self.last.schedule.max_accuracy_loss + DOUBTS * doubt:
                if share < 1:
                    self.events.append(f"{whole}: the result is {100 * share:.0f} % of its way")
                if lost < 0:
                    self.reference = answers  # what it gained is not there to be spent again
                self.start, self.taken, self.lost = result, first, max(0.0, lost)
                return
        # No later step would bring it back, and sooner on the way too little is unlearnt.
        self.events.append(f"{whole}: went on without it")

    def _answers(self, classifier: Classifier) -> Tensor | None:
        if self.validation is None:
            return None
        return right_answers(classifier.clone().to(self.device), self.validation, self.device)
