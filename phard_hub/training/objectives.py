"""Objectives that several trainings share; see `loop.Objective`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from phard_hub.training.batches import Batch


class CrossEntropy:
    """Cross-entropy on the batch, as it is or as a subclass shows it; labels may be smoothed."""

    in_parts = True

    def __init__(self, *, smoothing: float = 0.0) -> None:
        self.sample_gradients = self.sample_forwards = 0
        self.smoothing = smoothing

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss on the batch."""
        self.sample_gradients += batch.size
        pixels, labels = self.shown(batch)
        logits = model(pixels).float()
        return batch.mean(functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing))

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pixels and labels that the model is shown of a batch."""
        return batch.pixels, batch.labels

    def observed(self) -> None:
        """Nothing is attacked."""

    def back_off(self) -> str:
        """There is nothing that could be asked less."""
        return ""

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """The counter."""
        return {"sample_gradients": self.sample_gradients}

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state."""
        self.sample_gradients = int(state["sample_gradients"])
