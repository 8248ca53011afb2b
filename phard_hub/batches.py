"""Which images are in which step: a pure function of the seed and of the step, so that a stopped run continues."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from phard_hub.augmentation import augment
from phard_hub.images import LabelledImages


class Batches:
    """The batches of one training run, of which each process takes its share."""

    def __init__(
        self, images: LabelledImages, accelerator: Accelerator, *, size: int, seed: int, shift: float, flip: bool
    ) -> None:
        self.images, self.accelerator, self.size, self.seed = images, accelerator, min(size, len(images)), seed
        self.shift, self.flip = shift, flip

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of a batch: pixels in [0, 1], augmented, of shape ``(n, C, H, W)``, and labels."""
        epoch, place = divmod(step * self.size, len(self.images))
        order = torch.cat([self._order(epoch), self._order(epoch + 1)])[place : place + self.size]
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        pixels, labels = self.images.batch(order[process::processes], self.accelerator.device)
        return augment(pixels, generator_of_step(self.seed, step, process), shift=self.shift, flip=self.flip), labels

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.seed * 100_003 + epoch))


def generator_of_step(seed: int, step: int, process: int, purpose: int = 0) -> torch.Generator:
    """What one process draws from in one step, for one purpose; without a state, so that a stopped run continues.

    Args:
        seed: of the run.
        step: from 0.
        process: below 16.
        purpose: 0 for the loop's own augmentation, 1 to 3 for what an objective draws.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + 16 * purpose + process)
