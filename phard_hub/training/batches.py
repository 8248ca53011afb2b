"""Which images are in which step, and what is drawn for them, whatever the number of processes.

Both are a pure function of the seed and of the step, so a stopped run continues. Everything is drawn for the whole
batch, and each process takes what belongs to its images, so one process and many train alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from phard_hub.draws import Draws, generator
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.training.augmentation import augment

PURPOSES = 4
"""Different things that are drawn in one step: 0 for augmentation, the others for what an objective draws."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The images of one step that are in this process.

    Attributes:
        pixels: ``(n, C, H, W)`` in [0, 1].
        labels: ``(n,)``.
        step: from 0.
        places: ``(n,)``, where these images are in the whole batch.
        all_labels: ``(N,)``, those of the whole batch.
        batches: what it is from.
    """

    pixels: Tensor
    labels: Tensor
    step: int
    places: Tensor
    all_labels: Tensor
    batches: Batches

    def __len__(self) -> int:
        """Images in this process."""
        return len(self.labels)

    @property
    def size(self) -> int:
        """Images in all processes."""
        return len(self.all_labels)

    def first(self, count: int) -> Batch:
        """Those images that are among the first of the whole batch."""
        return self._part(self.places < count, self.places, self.all_labels[:count])

    def last(self, count: int) -> Batch:
        """Those images that are among the last of the whole batch."""
        start = self.size - count
        return self._part(self.places >= start, self.places - start, self.all_labels[start:])

    def _part(self, mine: Tensor, places: Tensor, all_labels: Tensor) -> Batch:
        return Batch(self.pixels[mine], self.labels[mine], self.step, places[mine], all_labels, self.batches)

    def with_more(self, pixels: Tensor, part: Batch) -> Batch:
        """These images, and then changed ones of a part of them; nothing can be drawn for the result."""
        return replace(
            self,
            pixels=torch.cat([self.pixels, pixels]),
            labels=torch.cat([self.labels, part.labels]),
            all_labels=torch.cat([self.all_labels, part.all_labels]),
        )

    def mean(self, values: Tensor) -> Tensor:
        """What this process adds to the mean of values ``(n,)`` over all processes, whose gradients are averaged."""
        mean: Tensor = values.sum() * (self.batches.job.accelerator.num_processes / self.size)
        return mean

    def draws(self, purpose: int) -> Draws:
        """What is drawn for these images, the same whenever it is asked for."""
        return Draws(self.batches.random(self.step, purpose), self.size, self.places)

    def whole(self) -> Batch:
        """All images of the step, in every process; for what has to see them together."""
        return self.batches.whole(self.step)


class Batches:
    """The batches of one training run, of which each process takes its share."""

    def __init__(self, images: LabelledImages, job: Job, *, size: int, shift: float, flip: bool) -> None:
        self.images, self.job, self.size = images, job, min(size, len(images))
        self.shift, self.flip = shift, flip

    def __getitem__(self, step: int) -> Batch:
        """This process's share of a batch, augmented."""
        process, processes = self.job.accelerator.process_index, self.job.accelerator.num_processes
        return self._batch(step, torch.arange(self.size)[process::processes])

    def whole(self, step: int) -> Batch:
        """The whole batch."""
        return self._batch(step, torch.arange(self.size))

    def random(self, step: int, purpose: int) -> torch.Generator:
        """What is drawn from in one step, for one of the `PURPOSES`; without a state, so a stopped run continues."""
        return generator(((self.job.seed * 1_000_003 + step) * PURPOSES + purpose) * 16)

    def _batch(self, step: int, places: Tensor) -> Batch:
        epoch, start = divmod(step * self.size, len(self.images))
        order = torch.cat([self._order(epoch), self._order(epoch + 1)])[start : start + self.size]
        device = self.job.accelerator.device
        pixels, labels = self.images.batch(order[places], device)
        draws = Draws(self.random(step, 0), self.size, places)
        pixels = augment(pixels, draws, shift=self.shift, flip=self.flip)
        return Batch(pixels, labels, step, places.to(device), self.images.labels[order], self)

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.images), generator=generator(self.job.seed * 100_003 + epoch))
