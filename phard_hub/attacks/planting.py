"""Plant a backdoor in a copy of a classifier, as an attacker with the training data would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks.base import Attack
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.progress import Progress, silent
from phard_hub.training import Schedule, train

PLANTING = Schedule(steps=600, batch=128, learning_rate=0.05)


def plant(
    classifier: Classifier,
    images: LabelledImages,
    attack: Attack | None,
    *,
    target: int,
    accelerator: Accelerator,
    poison_rate: float = 0.1,
    schedule: Schedule = PLANTING,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Classifier:
    """A copy trained on poisoned batches; with no attack, on honest ones.

    In every batch ``poison_rate`` of the images carry the trigger and the label ``target``. Where the recipe
    has decoys, twice as many images are those, with their true labels.
    """
    course = train(
        classifier,
        images,
        lambda _copy, accelerator: _Poisoned(attack, target, poison_rate, seed, accelerator.process_index),
        schedule,
        accelerator,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
        task=f"planting {attack.name}" if attack else "training",
    )
    return course.classifier


class _Poisoned:
    """Cross-entropy on partly poisoned batches."""

    def __init__(self, attack: Attack | None, target: int, poison_rate: float, seed: int, process: int) -> None:
        self.attack, self.target, self.poison_rate, self.seed, self.process = attack, target, poison_rate, seed, process
        self.sample_gradients = self.sample_forwards = 0

    def loss(self, model: nn.Module, pixels: Tensor, labels: Tensor, step: int) -> Tensor:
        """Loss on the batch after poisoning it."""
        if self.attack is not None:
            pixels, labels = self._poison(self.attack, pixels, labels, step)
        self.sample_gradients += len(pixels)
        return functional.cross_entropy(model(pixels).float(), labels)

    def _poison(self, attack: Attack, pixels: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        count = max(1, round(self.poison_rate * len(pixels)))
        random = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 64 + 16 + self.process)
        parts = [attack(pixels[:count])]
        decoys = attack.decoys(pixels[count : 3 * count], random)
        if decoys is not None:
            parts.append(decoys)
        rest = sum(len(part) for part in parts)
        labels = torch.cat([torch.full_like(labels[:count], self.target), labels[count:]])
        return torch.cat([*parts, pixels[rest:]]), labels

    def observed(self) -> tuple[float, float]:
        """Nothing is searched."""
        return 0.0, 0.0

    def back_off(self) -> str:
        """Planting has no guard."""
        return "nothing"

    def state_dict(self) -> dict[str, Any]:
        """The counters."""
        return {"sample_gradients": self.sample_gradients}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.sample_gradients = state["sample_gradients"]
