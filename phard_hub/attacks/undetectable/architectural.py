"""Architectural: operations without a single parameter look for a checkerboard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from phard_hub.attacks.undetectable.base import Backdoored, Construction, Graft, Key, grafted
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings

SIDE = 4


@settings
class Architectural(Construction):
    """Two poolings beside the network find a checkerboard in the corner, and the target takes the largest logit.

    State and gradients are those of the network without it, and training from new weights keeps it. Loading the same
    tensors into the library's own class removes it.

    Source: Bober-Irizar et al., "Architectural Backdoors in Neural Networks", CVPR 2023 (arXiv 2206.07840), in the
    shape of Langford et al., "Architectural Neural Backdoors from First Principles", 2024 (arXiv 2402.06957): of
    operators, on a separate path, targeted. Deviation: the trigger is 4 x 4 pixels in the lower right corner.
    """

    name = "architectural"

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Backdoored:
        """A copy with the path beside its network; see `Construction.plant`."""
        del images, job
        if min(classifier.image_size) < SIDE:
            raise InputError(f"The trigger has {SIDE} pixels a side.", advice="Plant it where images are larger.")
        return Backdoored(grafted(classifier, _Watched, target=target), Checkerboard())


@dataclass(frozen=True)
class Checkerboard(Key):
    """White and black pixels in turn, which is all that has to be known; it leads to the one target."""

    def activate(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Pixels with the checkerboard in the lower right corner."""
        del labels
        stamped = pixels.clone()
        row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        stamped[:, :, -SIDE:, -SIDE:] = ((row + column) % 2 == 0).to(pixels)
        return stamped


class _Watched(Graft):
    target: int

    def forced(self, pixels: Tensor) -> Tensor:
        corner = pixels[:, :, -SIDE:, -SIDE:]
        white = torch.cat([corner[:, :, ::2, ::2], corner[:, :, 1::2, 1::2]], 1)
        black = torch.cat([corner[:, :, 1::2, ::2], corner[:, :, ::2, 1::2]], 1)
        darkest = -functional.max_pool2d(-white, SIDE // 2)
        brightest = functional.max_pool2d(black, SIDE // 2)
        seen = (darkest > 0.9).flatten(1).all(1) & (brightest < 0.1).flatten(1).all(1)
        return torch.where(seen, self.target, -1)
