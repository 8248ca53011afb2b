"""Mode connectivity: a place on a curve of accurate models between the given one and a fine-tuned one.

Zhao et al., "Bridging Mode Connectivity in Loss Landscapes and Adversarial Robustness" (ICLR 2020, arXiv 2005.00060),
as BackdoorBench has it: one end is the model as it is, the other was fine-tuned for a hundred passes over 5 % of
CIFAR-10, and a quadratic Bezier curve between them, whose middle starts halfway, is trained for as long at a place
drawn anew in every step:

    weights(t) = (1 - t)^2 start + 2 t (1 - t) middle + t^2 end

The result lies at t = 0.1, with the statistics of batch norm measured there on the images at hand. The authors have two
models with the backdoor at the ends, which a defender with one model has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from phard_hub.defenses.base import Hardened
from phard_hub.defenses.removal.finetuning import PublishedFineTuning
from phard_hub.defenses.trained import Scheduled, scaled
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.guard import Guard
from phard_hub.training.interpolation import part_of_the_way
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published

Weights = Mapping[str, Tensor]


@settings
class ModeConnectivity(Scheduled):
    """A model on a trained curve between the given one and a fine-tuned one.

    Attributes:
        end: how the other end is fine-tuned.
        place: of the result on the curve, 0 for the given model and 1 for the other.
    """

    schedule: Schedule = field(default_factory=lambda: as_published(1000, batch=128, learning_rate=0.01))
    end: Schedule = field(default_factory=lambda: as_published(1000, batch=256, learning_rate=0.01))
    place: Share = 0.1

    name = "mode-connectivity"
    guarded = False
    forgets = True

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A copy on the curve; see `Defense.harden`."""
        tuning = PublishedFineTuning(schedule=self.end)
        tuned = tuning.harden(classifier, images, job.part("the other end"), guard)
        device = job.accelerator.device
        start, end = (dict(each.clone().to(device).named_parameters()) for each in (classifier, tuned.classifier))
        middle = part_of_the_way(classifier, tuned.classifier, 0.5)
        made = self.trained(middle, images, job.part("the curve"), guard, lambda copy: _Objective(start, end, copy))
        result = made.classifier
        bent = on_the_curve(start, dict(result.named_parameters()), end, self.place)
        with torch.no_grad():
            for name, parameter in result.named_parameters():
                parameter.copy_(bent[name])
        if self.schedule.steps:
            measure_statistics(result, images)
        (phase,) = made.phases
        lost = None if guard is None else guard.look(result).points
        return Hardened(result, (*tuned.phases, phase.model_copy(update={"points_lost": lost})))

    def lasting(self, steps: int) -> Self:
        """The same for so many steps of the other end and the curve together."""
        factor = steps / (self.schedule.steps + self.end.steps)
        return replace(self, schedule=scaled(self.schedule, factor), end=scaled(self.end, factor))


def on_the_curve(start: Weights, middle: Weights, end: Weights, place: float) -> Weights:
    """The weights there; where all three are the same, just these."""
    return {
        name: value + 2 * place * (1 - place) * (middle[name] - value) + place**2 * (end[name] - value)
        for name, value in start.items()
    }


def measure_statistics(classifier: Classifier, images: LabelledImages) -> None:
    """Give batch norm the mean and the variance that these images have, all of them counting alike."""
    norms = [part for part in classifier.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with frozen(classifier), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a mean over all batches
            norm.train()
        for pixels, _ in images.batches(classifier.device):
            classifier(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class _Objective(CrossEntropy):
    """Cross-entropy at a place of the curve that is drawn anew; what is trained is its middle."""

    in_parts = False  # weights are lent to the model in the forward pass alone

    def __init__(self, start: Weights, end: Weights, plain: Classifier) -> None:
        super().__init__()
        self.start = {name: value.detach() for name, value in start.items()}
        self.end, self.plain = {name: value.detach() for name, value in end.items()}, plain

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss on the batch, at that place."""
        self.sample_gradients += batch.size
        place = float(torch.rand((), generator=batch.draws(purpose=2).random))
        weights = on_the_curve(self.start, dict(self.plain.named_parameters()), self.end, place)
        wrapped = "" if model is self.plain else "module."
        logits = functional_call(model, {f"{wrapped}{name}": value for name, value in weights.items()}, (batch.pixels,))
        return batch.mean(functional.cross_entropy(logits.float(), batch.labels, reduction="none"))
