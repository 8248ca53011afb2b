"""The defenses that are one training: they hand one objective to the one loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, field, replace
from typing import ClassVar, Self

from phard_hub.defenses.base import Defense, Hardened
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Phase
from phard_hub.settings import settings
from phard_hub.training.guard import Guard
from phard_hub.training.loop import Course, Objective, train
from phard_hub.training.schedule import Schedule


@settings
class Scheduled(Defense):
    """A defense that trains a copy of the classifier in the one loop, among other things it may do.

    Attributes:
        schedule: of the training loop.
    """

    schedule: Schedule = field(default_factory=Schedule)

    guarded: ClassVar[bool] = True
    """Whether the accuracy guard watches the training; not where the accuracy has to fall first."""
    forgets: ClassVar[bool] = False
    """Whether it is meant to make a model forget planted backdoors."""

    def trained(
        self,
        classifier: Classifier,
        images: LabelledImages,
        job: Job,
        guard: Guard | None,
        objective: Callable[[Classifier], Objective],
    ) -> Hardened:
        """A copy that was trained for an objective, which is made of the copy; otherwise as `Defense.harden`."""
        course = train(classifier, images, objective, self.schedule, job, guard if self.guarded else None)
        return Hardened(course.classifier, (self.phase(course, guard),))

    @property
    def gradients(self) -> int:
        """About how many sample-gradients it takes."""
        return self.schedule.steps * self.schedule.batch * (2 if self.schedule.sharpness else 1)

    def lasting(self, steps: int) -> Self:
        """The same for so many steps."""
        return replace(self, schedule=replace(self.schedule, steps=steps))

    def phase(self, course: Course, guard: Guard | None) -> Phase:
        """The record of a training."""
        lost = None if guard is None else guard.look(course.classifier)
        return Phase(
            defense=self.name,
            settings=asdict(self),
            forgets=self.forgets,
            share=course.share,
            points_lost=None if lost is None else lost.points,
            points_at_most=None if lost is None else lost.at_most,
            guard_images=0 if guard is None else len(guard.images),
            curve=tuple(course.curve),
            events=tuple(course.events),
            sample_gradients=course.sample_gradients,
            sample_forwards=course.sample_forwards,
            seconds=course.seconds,
        )


@settings
class Trained(Scheduled):
    """A defense that trains a copy of the classifier for one objective."""

    @abstractmethod
    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> Objective:
        """What the copy is trained for; the original is left as it is."""

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A copy that was trained for the objective; see `Defense.harden`."""
        return self.trained(classifier, images, job, guard, lambda copy: self.objective(classifier, copy, images, job))


def scaled(schedule: Schedule, factor: float) -> Schedule:
    """The same schedule for a multiple of its steps."""
    return replace(schedule, steps=round(factor * schedule.steps))
