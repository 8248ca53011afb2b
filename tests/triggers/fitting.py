"""Triggers fitted to known attacks: what a set of parts can express."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from phard_hub.job import Progress, silent
from phard_hub.triggers.bank import Bank, Trigger


def fit(
    bank: Bank,
    attacks: Sequence[Trigger],
    seen: Tensor,
    energies: Sequence[float],
    *,
    steps: int,
    batch: int,
    seed: int = 0,
    progress: Progress = silent,
) -> None:
    """Fit the triggers of a bank to one attack each, all of them in one batch.

    Args:
        bank: as many triggers as there are attacks.
        attacks: what they are fitted to.
        seen: images to draw from, uint8 ``(n, C, H, W)``.
        energies: what the squared error of each attack is divided by.
        steps: of Adam, one cycle.
        batch: images in a step, the same for every attack.
        seed: of the draws.
        progress: called after each step.
    """
    optimizer = torch.optim.Adam(bank.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=steps)
    index = torch.arange(len(attacks)).repeat_interleave(batch)
    random = torch.Generator().manual_seed(seed)
    for step in range(steps):
        pixels = seen[torch.randint(len(seen), (batch,), generator=random)].float() / 255
        stamped = bank(pixels.repeat(len(attacks), 1, 1, 1), index).split(batch)
        errors = [
            (image - attack(pixels)).square().mean() / energy
            for image, attack, energy in zip(stamped, attacks, energies, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(errors).sum().backward()
        optimizer.step()
        schedule.step()
        progress("fitting triggers", step + 1, steps)


def energy(attack: Trigger, pixels: Tensor) -> float:
    """Mean square of what an attack changes."""
    return float((pixels - attack(pixels)).square().mean())


def explained(trigger: Trigger, attack: Trigger, pixels: Tensor) -> float:
    """Share of an attack's energy that a trigger explains, ``1 - MSE(trigger, attack) / MSE(image, attack)``."""
    return 1 - float((trigger(pixels) - attack(pixels)).square().mean()) / energy(attack, pixels)
