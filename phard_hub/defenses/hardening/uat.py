"""Universal adversarial training: one pattern for all images follows the model, and is trained against.

Shafahi et al., "Universal Adversarial Training" (UAT, AAAI 2020, arXiv 1811.11304): between two steps of the model, the
pattern takes one along the sign of its gradient. Their loss is cut off from above for the pattern, or a few images
that are wrong by far would be all that it learns.

Only the paper is public. It trains from scratch; here the model that is given is fine-tuned, as long and as fast as by
the other defenses. Step and cut are own choices.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional

from phard_hub.defenses.trained import Trained
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy


@settings
class UniversalAdversarialTraining(Trained):
    """Training on images that all carry the same pattern, which follows the model.

    Attributes:
        epsilon: largest value of the pattern, pixels in [0, 1].
        step_size: of the pattern, pixels in [0, 1].
        largest_loss: of an image, for the pattern.
    """

    epsilon: Share = 8 / 255
    step_size: NonNegativeFloat = 2 / 255
    largest_loss: PositiveFloat = 9.0

    name = "uat"
    guarded = False

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers under the pattern."""
        del original
        return _Objective(self, copy, images, job)


class _Objective(CrossEntropy):
    def __init__(
        self, settings: UniversalAdversarialTraining, plain: Classifier, images: LabelledImages, job: Job
    ) -> None:
        super().__init__()
        self.settings, self.plain, self.job = settings, plain, job
        self.pattern = torch.zeros(images.shape, device=job.accelerator.device)

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """All images with the pattern, after it took its step."""
        settings = self.settings
        self.sample_gradients += batch.size
        pattern = self.pattern.requires_grad_(True)
        with frozen(self.plain):
            losses = functional.cross_entropy(
                self.plain((batch.pixels + pattern).clamp(0, 1)), batch.labels, reduction="none"
            )
            (slope,) = torch.autograd.grad(losses.clamp(max=settings.largest_loss).sum(), pattern)
        slope = self.job.accelerator.reduce(slope, "sum")
        moved = pattern.detach() + settings.step_size * slope.sign()
        self.pattern = moved.clamp(-settings.epsilon, settings.epsilon)
        return (batch.pixels + self.pattern).clamp(0, 1), batch.labels

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """The counter and the pattern."""
        return {**super().state_dict(), "pattern": self.pattern.detach()}

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self.pattern = torch.as_tensor(state["pattern"]).to(self.pattern)
