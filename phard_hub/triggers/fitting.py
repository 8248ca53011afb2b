"""Fitting triggers: all of a bank at once, each made as small as it can be while it works.

Rows of a bank are divided over processes in pieces that do not depend on how many processes there are, and what is
drawn is drawn for all rows: so one, two and three processes find the same triggers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from phard_hub.hardware import fast_autocast, images_at_once
from phard_hub.job import Job, pieces_of
from phard_hub.models.classifier import Classifier
from phard_hub.triggers.bank import Triggers, change_size, finite
from phard_hub.triggers.pool import Directions, Pool, Pools
from phard_hub.triggers.settings import SearchSettings


@dataclass(frozen=True)
class Task:
    """What is looked for: a trigger for each direction.

    Attributes:
        directions: of the triggers.
        kinds: what each may be made of, ``""`` for all parts of the bank.
        current: the triggers as they are being fitted.
        best: of the same kind, for those that are kept.
    """

    directions: Directions
    kinds: Sequence[str]
    current: Triggers
    best: Triggers


@dataclass
class Cost:
    """Images that were sent through the classifier in this process, with a gradient and without."""

    gradients: int = 0
    forwards: int = 0


@dataclass
class Fitted:
    """What came of a task: the smallest trigger of each of this process's rows that worked, or the closest seen.

    ``quick`` is the classifier that they were fitted against, a folded copy.
    """

    task: Task
    pieces: list[Tensor]
    works: Tensor
    quick: Classifier
    cost: Cost = field(default_factory=Cost)

    @property
    def rows(self) -> list[int]:
        """The rows that this process has fitted."""
        return [row for piece in self.pieces for row in piece.tolist()]


class Fitting:
    """One task being done; its attributes are its state."""

    def __init__(self, quick: Classifier, pools: Pools, task: Task, settings: SearchSettings, job: Job) -> None:
        self.quick, self.pools, self.task, self.settings, self.job = quick, pools, task, settings, job
        self.device = job.accelerator.device
        self.random = torch.Generator().manual_seed(job.seed)
        count, shape = len(task.directions), pools.fit.images.shape
        at_once = max(1, images_at_once(shape) // settings.batch)
        self.pieces = list(pieces_of(torch.arange(count), at_once, dealt=True).values())
        self.cost = Cost()
        self.found = torch.full((count,), torch.inf, dtype=torch.double)
        self.closest = torch.full((count,), -1.0, dtype=torch.double)
        self.price = torch.full((count,), settings.price * float(3072 / np.prod(shape)) ** 0.5, device=self.device)
        self.running = torch.zeros(count, device=self.device)

    def run(self, what: str) -> Fitted:
        """Fit, and choose the smallest on images that nothing was fitted on."""
        steps = self.settings.steps
        checks = {steps - 1 - round(i * steps / 2 / self.settings.checks) for i in range(self.settings.checks)}
        current = self.task.current
        current.only(self.task.kinds)
        rate = current.pace * self.settings.learning_rate
        optimizer = torch.optim.Adam(current.parameters(), rate, betas=self.settings.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: anneal(step / steps))
        for step in range(steps):
            self._step(optimizer)
            schedule.step()
            if step in checks:
                self._check()
            self.job.progress(what, step + 1, steps)
        return Fitted(self.task, self.pieces, self.found.isfinite(), self.quick, self.cost)

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of every trigger; only the bank's gradients are filled, the classifier keeps no mark."""
        numbers = self.pools.fit.draw(self.task.directions, self.settings.batch, self.random)
        targets = self.task.directions.target.to(self.device)
        optimizer.zero_grad()
        for rows in self.pieces:
            index = rows.repeat_interleave(self.settings.batch).to(self.device)
            pixels = self.pools.fit.read(numbers[rows].flatten(), self.device)
            stamped = self.task.current(pixels, index)
            with fast_autocast(self.device):
                logits = self.quick(stamped)
            loss = functional.cross_entropy(logits.float(), targets[index], reduction="none")
            loss = loss + self.price[index] * change_size(stamped, pixels)
            (loss.sum() / self.settings.batch).backward(inputs=list(self.task.current.parameters()))
            hits = (logits.argmax(1) == targets[index]).view(len(rows), -1).float().mean(1)
            self.running[rows] = 0.7 * self.running[rows] + 0.3 * hits
            self.cost.gradients += len(pixels)
        for parameter in self.task.current.parameters():
            if parameter.grad is not None:
                parameter.grad = finite(parameter.grad)
        optimizer.step()
        factor = self.settings.price_factor
        self.price = self.price * torch.where(self.running >= self.settings.success, factor, 1 / factor)

    def _check(self) -> None:
        """Bisect the strength of every trigger and keep those smaller than what was found before."""
        strength = torch.ones(len(self.task.directions), dtype=torch.double)
        low, high = torch.zeros_like(strength), torch.full_like(strength, 2.0)
        for _ in range(self.settings.bisections):
            success, distance = self._try(strength)
            works = success >= self.settings.success
            self.task.best.take(self.task.current, works & (distance < self.found), strength)
            self.found = torch.where(works, distance.minimum(self.found), self.found)
            closer = self.found.isinf() & (success > self.closest)
            self.task.best.take(self.task.current, closer, strength)
            self.closest = torch.where(closer, success, self.closest)
            low, high = torch.where(works, low, strength), torch.where(works, strength, high)
            strength = (low + high) / 2

    def _try(self, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Success and mean size of every trigger of this process; of the others, success is -1."""
        success, distance = torch.full_like(strength, -1.0), torch.zeros_like(strength)
        for row in (row for piece in self.pieces for row in piece.tolist()):
            source, target = int(self.task.directions.source[row]), int(self.task.directions.target[row])
            pixels = images_for(self.pools.choose, source, target, self.settings.choosing_images, self.device)
            hits, sizes = answers(self.quick, self.task.current, row, target, pixels, strength[row].expand(len(pixels)))
            self.cost.forwards += len(pixels)
            success[row], distance[row] = hits.double().mean(), sizes.double().mean()
        return success, distance


def images_for(pool: Pool, source: int, target: int, at_most: int, device: torch.device) -> Tensor:
    """Pixels of the images that a trigger is tried on."""
    return pool.read(pool.all_of(source, target, at_most), device)


@torch.no_grad()
def answers(
    classifier: Classifier,
    triggers: Triggers,
    row: int,
    target: int,
    pixels: Tensor,
    strength: Tensor,
    *,
    precise: bool = False,
) -> tuple[Tensor, Tensor]:
    """What a trigger does to images, at a strength for each.

    Returns:
        Whether each is taken for the target ``(N,)``, and the L2 norm of its change ``(N,)``, on the CPU.
    """
    hits, sizes = [], []
    at_once = 4 * images_at_once(pixels.shape[1:])  # without gradients, more fit into memory
    for part, scale in zip(pixels.split(at_once), strength.to(pixels).split(at_once), strict=True):
        stamped = triggers(part, torch.full((len(part),), row, device=part.device), scale)
        with fast_autocast(part.device, enabled=not precise):
            logits = classifier(stamped)
        hits.append((logits.argmax(1) == target).cpu())
        sizes.append(change_size(stamped, part).cpu())
    return torch.cat(hits), torch.cat(sizes)


def anneal(progress: float) -> float:
    """Learning rate factor: half a cosine from 1 to 0.02."""
    return 0.51 + 0.49 * float(np.cos(np.pi * progress))
