"""Signed gradient ascent: the inner problem of most adversarial trainings, and of the attacks that judge them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def ascended(
    loss: Callable[[Tensor], Tensor], start: Tensor, centre: Tensor, *, epsilon: float, step_size: float, steps: int
) -> Tensor:
    """Values within epsilon of the centre, in [0, 1], that make a loss large.

    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (PGD, ICLR 2018, arXiv 1706.06083).

    Args:
        loss: of the values; a single number.
        start: where the first step begins, shaped as the centre.
        centre: of the ball.
        epsilon: its radius in the largest norm.
        step_size: of each step.
        steps: how many.
    """
    moved = start
    for _ in range(steps):
        moved = moved.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(moved), moved)
        moved = moved.detach() + step_size * gradient.sign()
        moved = torch.min(torch.max(moved, centre - epsilon), centre + epsilon).clamp(0, 1)
    return moved.detach()
