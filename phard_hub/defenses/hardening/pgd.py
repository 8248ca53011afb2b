"""Adversarial training: every image is moved to where the model errs most, a little, for itself.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (ICLR 2018, arXiv 1706.06083), with the
settings of MadryLab/robustness for CIFAR-10 and the model in evaluation mode while images are moved, as there.

Deviation: it fine-tunes the model that is given, for as long and as fast as the other defenses here; theirs trains one
from scratch for 150 epochs.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn import functional

from phard_hub.defenses.trained import Trained
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import Share, settings
from phard_hub.training.ascent import ascended
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy


@settings
class PgdTraining(Trained):
    """Training on images under projected gradient descent, and on no others.

    Attributes:
        epsilon: radius of the ball in the largest norm, pixels in [0, 1]; 0.03 for GTSRB in MOTH.
        step_size: of each step, pixels in [0, 1].
        inner_steps: steps in the ball, from a random place in it.
    """

    epsilon: Share = 8 / 255
    step_size: NonNegativeFloat = 2 / 255
    inner_steps: PositiveInt = 7

    name = "pgd-training"
    guarded = False

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers on the moved images."""
        del original, images, job
        return _Objective(self, copy)


class _Objective(CrossEntropy):
    def __init__(self, settings: PgdTraining, plain: Classifier) -> None:
        super().__init__()
        self.settings, self.plain = settings, plain

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The worst images that were found near those of the batch."""
        settings, pixels = self.settings, batch.pixels
        self.sample_gradients += settings.inner_steps * batch.size
        start = pixels + settings.epsilon * (2 * batch.draws(purpose=2).rand(*pixels.shape[1:]) - 1).to(pixels)

        def loss(moved: Tensor) -> Tensor:
            return functional.cross_entropy(self.plain(moved), batch.labels)

        with frozen(self.plain), torch.enable_grad():
            moved = ascended(
                loss,
                start.clamp(0, 1),
                pixels,
                epsilon=settings.epsilon,
                step_size=settings.step_size,
                steps=settings.inner_steps,
            )
        return moved, batch.labels
