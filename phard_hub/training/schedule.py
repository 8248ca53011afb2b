"""How long and how fast is trained, and what it may cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from phard_hub.settings import BelowOne, Share, settings


@settings
class Schedule:
    """How long and how fast is trained.

    Attributes:
        steps: updates of the model.
        batch: clean images in a step, over all processes.
        learning_rate: its peak.
        optimizer: SGD, or Adam with its usual betas.
        momentum: of SGD, above 0, because Nesterov's needs some.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: of the optimizer.
        warm_up: share of the steps in which the learning rate rises.
        annealed: whether it falls again, along half a cosine to zero.
        clip: largest norm of the gradient.
        sharpness: radius of sharpness-aware steps, which ask the objective for its loss twice; 0 for plain ones.
        averaging: decay of the running average of the weights, which is the result.
        interpolation: where the result lies on the straight line from the weights of the start (0) to that average
            (1): close to the end, the accuracy of the start returns sooner than what was unlearnt. Where there is a
            barrier on the line, the result is its end. The guard looks at the same place.
        shift: random shift of the images, as a share of their side.
        flip: random mirroring; None mirrors if the classifier itself is indifferent to it.
        guard_every: steps between two looks at the validation accuracy.
        max_accuracy_loss: points of validation accuracy that may be lost. On the way the loss counts less its
            standard error, because on a few images one or two wrong answers more are chance.
        peak_allowance: points allowed in addition at the peak of the learning rate, falling with it.
        collapse: points whose loss sends the weights back to the last good ones, at any time.
        save_every: steps between two checkpoints; the last one is at the end, because what comes after may be stopped.
    """

    steps: NonNegativeInt = 1100
    batch: PositiveInt = 128
    learning_rate: NonNegativeFloat = 0.03
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 5e-4
    warm_up: BelowOne = 0.2
    annealed: bool = True
    clip: PositiveFloat = 2.0
    sharpness: NonNegativeFloat = 0.0
    averaging: BelowOne = 0.98
    interpolation: Share = 1.0
    shift: Share = 0.125
    flip: bool | None = None
    guard_every: PositiveInt = 50
    max_accuracy_loss: NonNegativeFloat = 1.0
    peak_allowance: NonNegativeFloat = 2.0
    collapse: NonNegativeFloat = 20.0
    save_every: PositiveInt = 100

    def pace(self, step: int) -> float:
        """Learning rate of a step as a share of its peak: a linear rise, then half a cosine to zero, or nothing."""
        progress = (step + 1) / self.steps
        if progress < self.warm_up:
            return progress / self.warm_up
        if not self.annealed:
            return 1.0
        return 0.5 + 0.5 * float(torch.cos(torch.tensor(torch.pi * (progress - self.warm_up) / (1 - self.warm_up))))

    def optimizer_of(self, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimizer of these weights."""
        if self.optimizer == "adam":
            return torch.optim.Adam(weights, self.learning_rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(
            weights, self.learning_rate, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


MOMENTS = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq", "step")}
"""What each optimizer keeps of a weight; of SGD's it keeps nothing before its first step."""
NO_CLIPPING = 1e9
"""A norm that no gradient has."""


def as_published(steps: int, *, batch: int, learning_rate: float, **more: Any) -> Schedule:  # noqa: ANN401 - its fields
    """Plain SGD as most papers have it: momentum 0.9, half a cosine, the last weights, and nothing of our own.

    Nothing is warmed up, clipped or averaged. Images are shifted and mirrored as in every other training here.
    """
    plain = {"nesterov": False, "warm_up": 0.0, "clip": NO_CLIPPING, "averaging": 0.0}
    return Schedule(steps=steps, batch=batch, learning_rate=learning_rate, **(plain | more))
