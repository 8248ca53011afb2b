"""Plain fine-tuning on clean images, the baseline that any other defense has to beat, and losses to build on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.defenses.base import Defense
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.training import generator_of_step
from phard_hub.triggers.bank import Parts
from phard_hub.triggers.chance import stamp_at_random


@dataclass(frozen=True, kw_only=True)
class FineTuning(Defense):
    """Train on clean images with their labels, in the same loop and for as long as the defense it is compared with."""

    name = task = "fine-tuning"

    def objective(
        self, original: Classifier, copy: Classifier, images: LabelledImages, accelerator: Accelerator, seed: int
    ) -> CrossEntropy:
        """Cross-entropy alone."""
        del original, copy, images, accelerator, seed
        return CrossEntropy()


class CrossEntropy:
    """Cross-entropy on the batch as it is; nothing is searched."""

    def __init__(self) -> None:
        self.sample_gradients = self.sample_forwards = 0

    def loss(self, model: nn.Module, pixels: Tensor, labels: Tensor, step: int) -> Tensor:
        """Loss on the batch."""
        del step
        self.sample_gradients += len(pixels)
        return functional.cross_entropy(model(pixels).float(), labels)

    def observed(self) -> tuple[float, float]:
        """Nothing is attacked."""
        return 0.0, 0.0

    def back_off(self) -> str:
        """There is nothing to ask less of."""
        return "nothing to make easier"

    def state_dict(self) -> dict[str, Any]:
        """The counter."""
        return {"sample_gradients": self.sample_gradients}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.sample_gradients = state["sample_gradients"]


class RandomlyStamped(CrossEntropy):
    """Cross-entropy on the batch and on a share of it again, stamped with triggers drawn at random: no search."""

    def __init__(self, share: float, budget: float, parts: Parts, accelerator: Accelerator, seed: int) -> None:
        super().__init__()
        self.share, self.budget, self.parts, self.accelerator, self.seed = share, budget, parts, accelerator, seed

    def loss(self, model: nn.Module, pixels: Tensor, labels: Tensor, step: int) -> Tensor:
        """Loss on all of them; a step draws the same triggers whenever it is asked."""
        random = generator_of_step(self.seed, step, self.accelerator.process_index, purpose=3)
        count = round(self.share * len(pixels))
        with torch.no_grad():
            stamped = stamp_at_random(pixels[:count], self.parts, self.budget, random)
        return super().loss(model, torch.cat([pixels, stamped]), torch.cat([labels, labels[:count]]), step)
