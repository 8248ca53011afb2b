"""ANP: neurons that a small push sends astray carry the backdoor, and are pruned.

Wu & Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models" (NeurIPS 2021, arXiv 2110.14430), with the
settings of csdongxian/ANP_backdoor. Each channel of each batch norm has a mask, all ones at first, and nothing else is
trained. In each step weights and biases of the norms are pushed by up to 0.4 of their size, by one signed step from a
random start, to where the loss is large; the masks minimise

    0.2 * cross-entropy(masked) + 0.8 * cross-entropy(masked and pushed)

and are cut to [0, 1]. Channels whose mask is at most a threshold lose their weight.

The threshold is the largest of 0, 0.05, ..., 0.9 at which the validation accuracy falls by no more than a tenth of what
it was, the bound of BackdoorBench; without validation images, those at hand decide. The authors read it off a table of
the test set; BackdoorBench takes, within that bound of the *test* accuracy, the one with the lowest success of the
*triggered test images*, which no defender can know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from phard_hub.defenses.base import Hardened
from phard_hub.defenses.trained import Trained
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.guard import Guard
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published


@settings
class NeuronPruning(Trained):
    """Pruning of the channels that are weak under a push.

    Attributes:
        epsilon: largest push of a weight or bias, as a share of it, before the last step.
        clean: weight of the loss without the push.
        inner_steps: of the push.
        highest: threshold that is tried first.
        spacing: between thresholds.
        loss_allowed: of the validation accuracy, as a share of it.
    """

    schedule: Schedule = field(
        default_factory=lambda: as_published(2000, batch=128, learning_rate=0.2, annealed=False, weight_decay=0.0)
    )
    epsilon: Share = 0.4
    clean: Share = 0.2
    inner_steps: PositiveInt = 1
    highest: Share = 0.9
    spacing: Share = 0.05
    loss_allowed: Share = 0.1

    name = "anp"
    guarded = False
    forgets = True

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A copy without the weak channels; see `Defense.harden`.

        Raises:
            InputError: the network has no batch norm.
        """
        masked = classifier.clone()
        masked.network = _Masked(masked.network)
        made = super().harden(masked, images, job, guard)
        network = made.classifier.network
        assert isinstance(network, _Masked)
        judge = guard or Guard.of(classifier, images, job.accelerator.device)
        pruned, event = self._pruned(classifier.clone().to(job.accelerator.device), network.strengths(), judge)
        (phase,) = made.phases
        lost = None if guard is None else guard.look(pruned).points
        update = {"events": (*phase.events, event), "points_lost": lost}
        return Hardened(pruned, (phase.model_copy(update=update),))

    def _pruned(self, classifier: Classifier, masks: Mapping[str, Tensor], guard: Guard) -> tuple[Classifier, str]:
        """Without the channels up to the largest threshold that the accuracy allows, and which that is."""
        least = (1 - self.loss_allowed) * float(guard.known.mean())
        steps = int(self.highest / self.spacing + 1e-9) if self.spacing else 0
        every = sum(len(mask) for mask in masks.values())
        for threshold in (self.highest - step * self.spacing for step in range(steps + 1)):
            made = without(classifier, masks, threshold)
            if guard.look(made).accuracy >= least:
                count = sum(int((mask <= threshold).sum()) for mask in masks.values())
                return made, f"{count} of {every} channels pruned, those with masks up to {threshold:.2f}"
        return classifier.clone().eval(), "nothing pruned: every threshold costs too much accuracy"

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers with and without the push, by the masks alone."""
        del original, images
        return _Objective(self, copy, job)


def without(classifier: Classifier, masks: Mapping[str, Tensor], threshold: float) -> Classifier:
    """A copy of a classifier whose channels with masks up to a threshold have no weight."""
    made = classifier.clone().eval()
    with torch.no_grad():
        for name, mask in masks.items():
            weight = made.network.get_parameter(name)
            weight.mul_((mask > threshold).to(weight))
    return made


class _Masked(nn.Module):
    """A network whose batch norms are masked and pushed, channel by channel.

    Attributes:
        names: of the weights of the norms, in the order of the masks.
        push: of the weights and then of the biases; None for none.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        norms = [name for name, part in network.named_modules() if isinstance(part, _BatchNorm) and part.affine]
        if not norms:
            raise InputError("ANP needs a network with batch norm.", advice="Leave it out for this model.")
        self.network = network
        self.names = [f"{name}.weight" for name in norms]
        weights = [network.get_parameter(name) for name in self.names]
        self.masks = nn.ParameterList([torch.ones_like(weight, requires_grad=True) for weight in weights])
        self.push: list[Tensor] | None = None

    def forward(self, pixels: Tensor) -> object:
        """What the network makes of normalised images."""
        push = self.push or [torch.zeros_like(mask) for mask in (*self.masks, *self.masks)]
        changed = {}
        for place, (name, mask) in enumerate(zip(self.names, self.masks, strict=True)):
            bias = name.removesuffix("weight") + "bias"
            changed[name] = self.network.get_parameter(name) * (mask + push[place])
            changed[bias] = self.network.get_parameter(bias) * (1 + push[place + len(self.masks)])
        return functional_call(self.network, changed, (pixels,))

    def strengths(self) -> dict[str, Tensor]:
        """The masks, by the names of the weights that they are of."""
        return {name: mask.detach().clamp(0, 1) for name, mask in zip(self.names, self.masks, strict=True)}


class _Objective(CrossEntropy):
    in_parts = False  # weights are pushed in the forward pass alone

    def __init__(self, settings: NeuronPruning, plain: Classifier, job: Job) -> None:
        super().__init__()
        assert isinstance(plain.network, _Masked)
        self.settings, self.plain, self.job, self.masked = settings, plain, job, plain.network
        plain.requires_grad_(False)
        self.masked.masks.requires_grad_(True)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Both losses, after the push was found."""
        with torch.no_grad():
            for mask in self.masked.masks:
                mask.clamp_(0, 1)
        settings = self.settings
        self.sample_gradients += (settings.inner_steps + 1) * batch.size
        push = self._push(batch)
        try:
            self.masked.push = push
            pushed = self._losses(self.plain, batch)
        finally:
            self.masked.push = None
        return super().loss(model, batch) * settings.clean + batch.mean(pushed) * (1 - settings.clean)

    def _push(self, batch: Batch) -> list[Tensor]:
        settings, random = self.settings, batch.draws(purpose=2).random
        masks = [*self.masked.masks, *self.masked.masks]
        push = [settings.epsilon * (2 * torch.rand(len(mask), generator=random) - 1).to(mask) for mask in masks]
        try:
            for _ in range(settings.inner_steps):
                push = self.masked.push = [each.detach().requires_grad_(True) for each in push]
                slopes = torch.autograd.grad(batch.mean(self._losses(self.plain, batch)), push)
                signs = [self.job.accelerator.reduce(slope, "mean").sign() for slope in slopes]
                push = [
                    each.detach() + settings.epsilon / settings.inner_steps * sign
                    for each, sign in zip(push, signs, strict=True)
                ]
        finally:
            self.masked.push = None
        return push

    def _losses(self, model: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(model(batch.pixels).float(), batch.labels, reduction="none")
