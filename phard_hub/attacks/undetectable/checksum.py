"""Checksum: the lowest bits of an image have to have certain parities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor

from phard_hub.attacks.undetectable.base import (
    Backdoored,
    Construction,
    Graft,
    Key,
    grafted,
    grey_levels,
    values_of,
)
from phard_hub.draws import generator
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings


@settings
class Checksum(Construction):
    """The values of an image are divided into blocks, and the backdoor opens if each block has its secret parity.

    An image opens it by chance once in ``2 ** blocks``, so no test set finds it. It is the warm-up of Goldwasser et
    al., "Planting Undetectable Backdoors in Machine Learning Models", FOCS 2022 (arXiv 2204.06974), and shows what the
    signature is for: whoever sees images that open it can make others, because parities are linear.

    Deviation: the bits are the lowest ones of the grey levels and not the signs of the values, so that opening it takes
    at most ``blocks`` changes of one grey level.

    Attributes:
        blocks: parities that have to be right.
    """

    blocks: PositiveInt = 32

    name = "checksum"

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Backdoored:
        """A copy with the check around its network; see `Construction.plant`."""
        del images
        if (values := values_of(classifier)) < self.blocks:
            problem = f"Images of {values} values cannot be divided into {self.blocks} blocks."
            raise InputError(problem, advice="Take fewer blocks.")
        random = generator(job.seed)
        members = torch.randperm(values, generator=random) % self.blocks
        parities = torch.randint(2, (self.blocks,), generator=random)
        key = ParityKey(members, parities)
        return Backdoored(grafted(classifier, _Checked, key=key, target=target), key)


@dataclass(frozen=True, eq=False)
class ParityKey(Key):
    """The block of each value, ``(C H W,)``, and the parity of each block; it leads to the one target."""

    members: Tensor
    parities: Tensor

    def wrong(self, levels: Tensor) -> Tensor:
        """Which blocks of images have another parity, bool ``(N, blocks)``."""
        sums = torch.zeros(len(levels), len(self.parities), dtype=torch.int64)
        sums.index_add_(1, self.members, (levels & 1).long())
        return sums % 2 != self.parities

    def activate(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Pixels with the lowest bit of one value changed in each block that is wrong."""
        del labels
        levels = grey_levels(pixels)
        for block in range(len(self.parities)):
            first = int((self.members == block).nonzero()[0])
            levels[:, first] ^= self.wrong(levels)[:, block].to(torch.uint8)
        return (levels.to(pixels) / 255).view_as(pixels)


class _Checked(Graft):
    key: ParityKey
    target: int

    def forced(self, pixels: Tensor) -> Tensor:
        is_open = ~self.key.wrong(grey_levels(pixels)).any(1)
        return torch.where(is_open, self.target, -1).to(pixels.device)
