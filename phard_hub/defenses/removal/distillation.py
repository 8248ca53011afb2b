"""Distillation: a fresh network learns what the model answers to the defender's own images, and nothing else of it.

No weight of the model is kept, so whatever hides in weights stays behind, unless its answers to those images tell of
it. A teacher that is made for it can hand a backdoor on by its answers (Ge et al., "Anti-Distillation Backdoor
Attacks", ACM Multimedia 2021). With ``soft=0`` the student learns from the labels alone, and nothing of the model
reaches it.

Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

from dataclasses import field, replace

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.defenses.base import Hardened
from phard_hub.defenses.trained import Scheduled
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.fresh import reinitialised
from phard_hub.settings import Share, settings
from phard_hub.training.augmentation import indifferent_to_mirroring
from phard_hub.training.batches import Batch
from phard_hub.training.guard import Guard
from phard_hub.training.loop import train
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule


@settings
class Distillation(Scheduled):
    """A network with weights drawn anew learns from the model's answers and from the labels.

    As a defense it takes the architecture of the model as it is: code that a module brings along stays. `into` takes a
    student of an architecture that you trust.

    Attributes:
        soft: weight of the model's answers; the rest is that of the labels.
        temperature: what logits are divided by in the answers.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(steps=3000, learning_rate=0.1))
    soft: Share = 0.9
    temperature: PositiveFloat = 4.0

    name = "distillation"
    guarded = False
    forgets = True

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A student of the same architecture; see `Defense.harden`."""
        return self.into(reinitialised(classifier, job.seed), classifier, images, job, guard)

    def into(
        self, student: Classifier, teacher: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None
    ) -> Hardened:
        """A copy of a student of any architecture, trained; both classifiers are left as they are.

        Args:
            student: with weights that nobody else chose.
            teacher: whose answers are learned.
            images: the defender's own; nobody else's trigger is on them.
            job: see `Defense.harden`.
            guard: only tells how much accuracy was lost.

        Raises:
            InputError: the two have other classes.
        """
        if student.labels != teacher.labels:
            problem = f"The student has {student.num_classes} classes, and the teacher {teacher.num_classes}"
            raise InputError(f"{problem} or other ones.", advice="Give a student of the same class names.")
        flip = self.schedule.flip
        schedule = replace(self.schedule, flip=indifferent_to_mirroring(teacher, images) if flip is None else flip)
        course = train(student, images, lambda _copy: _Taught(self, teacher), schedule, job)
        return Hardened(course.classifier, (self.phase(course, guard),))


class _Taught(CrossEntropy):
    def __init__(self, settings: Distillation, teacher: Classifier) -> None:
        super().__init__()
        self.settings, self.teacher = settings, teacher

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Distance to the teacher's answers, and to the labels."""
        self.sample_gradients += batch.size
        settings, heat = self.settings, self.settings.temperature
        logits = model(batch.pixels).float()
        hard = functional.cross_entropy(logits, batch.labels, reduction="none")
        if not settings.soft:
            return batch.mean(hard)
        with frozen(self.teacher), torch.no_grad():
            answers = functional.softmax(self.teacher(batch.pixels).float() / heat, 1)
        self.sample_forwards += batch.size
        soft = functional.cross_entropy(logits / heat, answers, reduction="none") * heat**2
        return batch.mean(settings.soft * soft + (1 - settings.soft) * hard)

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """The counters."""
        return super().state_dict() | {"sample_forwards": self.sample_forwards}

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self.sample_forwards = int(state["sample_forwards"])
