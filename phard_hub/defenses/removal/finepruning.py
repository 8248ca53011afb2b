"""Fine-Pruning: features that clean images hardly use are cut off, and the rest is fine-tuned.

Liu et al., "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks" (RAID 2018, arXiv 1805.12185),
as BackdoorBench has it: the inputs of the head, in the order of their mean on clean images, lose their weights, one in
a hundred at a time, until the accuracy falls by a tenth of what it was. Fine-tuning, a hundred passes over 5 % of
CIFAR-10 at 0.01, leaves them cut off.

Deviation: BackdoorBench looks at the accuracy on the *test* images; here it is that on the validation images, or
without them on those at hand. So the limit is met on fewer images, and nothing else is chosen by it.
"""

from __future__ import annotations

import math
from dataclasses import field

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from phard_hub.defenses.base import Hardened
from phard_hub.defenses.trained import Trained
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.head import Layer, heads
from phard_hub.settings import Share, settings
from phard_hub.training.guard import Guard
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published


@settings
class FinePruning(Trained):
    """Fine-tuning without the features that clean images use least.

    Attributes:
        at_once: share of the features that are cut off before the accuracy is looked at again.
        loss_allowed: of the validation accuracy, as a share of it.
    """

    schedule: Schedule = field(default_factory=lambda: as_published(1000, batch=256, learning_rate=0.01))
    at_once: PositiveFloat = 0.01
    loss_allowed: Share = 0.1

    name = "fine-pruning"
    guarded = False
    forgets = True

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A copy that was pruned and fine-tuned; see `Defense.harden`.

        Raises:
            InputError: the network does not end in a linear layer.
        """
        judge = guard or Guard.of(classifier, images, job.accelerator.device)
        pruned, count, every = self._pruned(classifier.clone().to(job.accelerator.device), images, judge)
        made = super().harden(pruned, images, job, guard)
        (phase,) = made.phases
        events = (f"{count} of {every} features cut off", *phase.events)
        update = {"events": events, "sample_forwards": phase.sample_forwards + len(images)}
        return Hardened(made.classifier, (phase.model_copy(update=update),))

    def _pruned(self, classifier: Classifier, images: LabelledImages, guard: Guard) -> tuple[Classifier, int, int]:
        """The last copy that was accurate enough, how many features it lost, and how many there are."""
        if not heads(classifier):
            problem = "Fine-Pruning needs a network that ends in a linear layer."
            raise InputError(problem, advice="Leave it out for this model.")
        order = _mean_inputs(classifier, heads(classifier)[-1], images).argsort()
        least = (1 - self.loss_allowed) * float(guard.known.mean())
        step = max(1, math.ceil(self.at_once * len(order)))
        good, cut = classifier, 0
        for count in range(step, len(order), step):
            tried = classifier.clone()
            with torch.no_grad():
                for head in heads(tried):
                    head.weight[:, order[:count]] = 0
            if guard.look(tried).accuracy <= least:
                break
            good, cut = tried, count
        return good, cut, len(order)

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> CrossEntropy:
        """Right answers, by the features that are left."""
        del original, images, job
        for head in heads(copy):
            _stay_cut(head)
        return CrossEntropy()


def _stay_cut(head: Layer) -> None:
    """Let inputs without any weight stay so: neither momentum nor decay moves what has no gradient and is zero."""
    used = (head.weight.detach() != 0).any(0, keepdim=True)
    head.weight.register_hook(lambda gradient: gradient * used)


def _mean_inputs(classifier: Classifier, head: Layer, images: LabelledImages) -> Tensor:
    """The mean of each input of the head, ``(features,)``."""
    means: list[Tensor] = []

    def note(_head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        means.append(inputs[0].flatten(2).mean(2).sum(0) if inputs[0].dim() > 2 else inputs[0].sum(0))

    handle = head.register_forward_pre_hook(note)
    try:
        with frozen(classifier), torch.no_grad():
            for pixels, _ in images.batches(classifier.device):
                classifier(pixels)
    finally:
        handle.remove()
    return torch.stack(means).sum(0) / len(images)
