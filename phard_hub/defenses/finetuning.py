"""Plain fine-tuning on clean images: the baseline that any other defense has to beat."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.progress import Progress, silent
from phard_hub.report.record import Hardening
from phard_hub.training import Schedule, train


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Train on clean images with their labels, in the same loop and for as long as the defense it is compared with.

    Attributes:
        schedule: of the training loop.
    """

    schedule: Schedule = field(default_factory=Schedule)

    name = "fine-tuning"

    def harden(
        self,
        classifier: Classifier,
        images: LabelledImages,
        accelerator: Accelerator,
        *,
        seed: int = 0,
        validation: LabelledImages | None = None,
        checkpoint: Path | None = None,
        progress: Progress = silent,
    ) -> tuple[Classifier, Hardening]:
        """A fine-tuned copy of the classifier, and the record of how it was made.

        Raises:
            InterruptedRunError: stopped by the user; the same call with the same ``checkpoint`` continues.
        """
        objective = _CrossEntropy()
        course = train(
            classifier,
            images,
            lambda _copy, _accelerator: objective,
            self.schedule,
            accelerator,
            seed=seed,
            validation=validation,
            checkpoint=checkpoint,
            progress=progress,
            task="fine-tuning",
        )
        record = Hardening(
            defense=self.name,
            settings=asdict(self),
            seed=seed,
            images=len(images),
            curve=tuple(course.curve),
            events=tuple(course.events),
            sample_gradients=objective.sample_gradients * accelerator.num_processes,
            sample_forwards=0,
            seconds=course.seconds,
        )
        return course.classifier, record


class _CrossEntropy:
    """Cross-entropy on the batch as it is."""

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
