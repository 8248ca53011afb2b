"""NAD: the copy looks where a fine-tuned teacher looks, layer by layer, and loses sight of the trigger.

Li et al., "Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural Networks" (ICLR 2021, arXiv
2101.05930):

    cross-entropy + sum over stages of weight * mean((A(copy) - A(teacher))^2),  A = sum |features|^2 / its norm

with the weights of bboylyg/NAD, 500, 1000 and 1000 from the first stage to the last. Its recipe is SGD at 0.1 for 20
passes over 5 % of the images; here it is that of BackdoorBench, which suits given models better: ten passes for the
teacher and a hundred for the copy, both at 0.01. The authors keep the pass that does best on the *test* images; here it
is the last.

The stages of a network are where the last features of each size come out: in a ResNet its stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from phard_hub.defenses.base import Hardened
from phard_hub.defenses.removal.finetuning import PublishedFineTuning
from phard_hub.defenses.trained import Scheduled, scaled
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import settings
from phard_hub.training.batches import Batch
from phard_hub.training.guard import Guard
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published


@settings
class AttentionDistillation(Scheduled):
    """Distillation of the attention of a teacher that was fine-tuned.

    Attributes:
        teacher: how the teacher is fine-tuned.
        weights: of the last stages, the last one last.
        power: of the features in an attention map.
    """

    schedule: Schedule = field(default_factory=lambda: as_published(1000, batch=256, learning_rate=0.01))
    teacher: Schedule = field(default_factory=lambda: as_published(100, batch=256, learning_rate=0.01))
    weights: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (500.0, 1000.0, 1000.0)
    power: PositiveFloat = 2.0

    name = "nad"
    guarded = False
    forgets = True

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A copy that learnt from a fine-tuned teacher; see `Defense.harden`.

        Raises:
            InputError: the network is not convolutional.
        """
        if sum(isinstance(part, nn.Conv2d) for part in classifier.modules()) < 2:
            raise InputError("NAD needs a convolutional network.", advice="Leave it out for this model.")
        tuning = PublishedFineTuning(schedule=self.teacher)
        teacher = tuning.harden(classifier, images, job.part("teacher"), guard)
        device, part = job.accelerator.device, job.part("distilling")
        made = self.trained(
            classifier, images, part, guard, lambda copy: _Objective(self, teacher.classifier.clone().to(device), copy)
        )
        return Hardened(made.classifier, teacher.phases + made.phases)

    def lasting(self, steps: int) -> Self:
        """The same for so many steps of teacher and copy together."""
        factor = steps / (self.schedule.steps + self.teacher.steps)
        return replace(self, schedule=scaled(self.schedule, factor), teacher=scaled(self.teacher, factor))


class _Objective(CrossEntropy):
    in_parts = False  # features inside of the model are looked at

    def __init__(self, settings: AttentionDistillation, teacher: Classifier, plain: Classifier) -> None:
        super().__init__()
        self.settings, self.teacher, self.plain = settings, teacher.requires_grad_(False), plain
        self.stages = stages(plain)[-len(settings.weights) :]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy and the distances of the attention maps."""
        self.sample_forwards += batch.size
        with outputs_of(self.teacher, self.stages) as theirs, torch.no_grad():
            self.teacher(batch.pixels)
        with outputs_of(self.plain, self.stages) as mine:
            loss = super().loss(model, batch)
        for weight, name in zip(self.settings.weights[-len(self.stages) :], self.stages, strict=True):
            apart = self._attention(mine[name]) - self._attention(theirs[name])
            loss = loss + weight * batch.mean(apart.square().mean((1, 2)))
        return loss

    def _attention(self, features: Tensor) -> Tensor:
        """Where features ``(N, C, H, W)`` are large, ``(N, H, W)``."""
        attention = features.float().abs().pow(self.settings.power).sum(1)
        norms: Tensor = attention.flatten(1).norm(dim=1)
        return attention / (norms[:, None, None] + 1e-6)

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """Both counters."""
        return {**super().state_dict(), "sample_forwards": self.sample_forwards}

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self.sample_forwards = int(state["sample_forwards"])


@contextmanager
def outputs_of(classifier: Classifier, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """What these modules return while the context lasts."""
    found: dict[str, Tensor] = {}

    def note(name: str, output: Tensor) -> None:
        found[name] = output

    modules = dict(classifier.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda _module, _inputs, output, name=name: note(name, output))
        for name in names
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def stages(classifier: Classifier) -> list[str]:
    """The modules that features ``(N, C, H, W)`` of each size come out of last, larger features first."""
    last: dict[torch.Size, str] = {}
    names = {module: name for name, module in classifier.named_modules()}

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            last.pop(output.shape[2:], None)
            last[output.shape[2:]] = names[module]

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with frozen(classifier), torch.no_grad():
            classifier(torch.zeros(1, classifier.channels, *classifier.image_size, device=classifier.device))
    finally:
        for handle in handles:
            handle.remove()
    return list(last.values())
