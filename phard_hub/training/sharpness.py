"""Sharpness-aware steps: weights are moved uphill of where they are, for a moment.

Sharpness-aware steps take the gradient uphill of the weights, so that only wide minima are kept:

Foret et al., "Sharpness-Aware Minimization" (ICLR 2021, arXiv 2010.01412). The way uphill is measured by the size of
each weight, as Kwon et al. have it in "ASAM" (ICML 2021, arXiv 2102.11600):

    move = radius * t^2 g / |t g|,    t = |w| for weights, 1 for biases and the weights of norms

Zhu et al., "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization" (FT-SAM, ICCV 2023, arXiv
2304.11823) found that what such steps shrink first are the large weights that carry a backdoor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import get_total_norm


@contextmanager
def uphill(model: nn.Module, radius: float) -> Iterator[None]:
    """Weights moved along their gradients for as long as the context lasts; what it does to buffers is undone, too.

    Args:
        model: with gradients from a backward pass; weights without one stay where they are.
        radius: length of the move, where every coordinate is measured in sizes of its weight.
    """
    moved = [(weight, weight.grad) for weight in model.parameters() if weight.grad is not None]
    kept = [(each, each.detach().clone()) for each in (*model.parameters(), *model.buffers())]
    with torch.no_grad():
        scales = [weight.abs() if weight.dim() > 1 else torch.ones_like(weight) for weight, _ in moved]
        steps = [scale * slope for scale, (_, slope) in zip(scales, moved, strict=True)]
        share = radius / (get_total_norm(steps) + 1e-12)
        for (weight, _), scale, step in zip(moved, scales, steps, strict=True):
            weight.add_(scale * step * share)
    try:
        yield
    finally:
        with torch.no_grad():
            for each, value in kept:
                each.copy_(value)
