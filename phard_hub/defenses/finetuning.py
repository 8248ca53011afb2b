"""Plain fine-tuning on clean images: the baseline that any other defense has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.defenses.base import Defense
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier


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
