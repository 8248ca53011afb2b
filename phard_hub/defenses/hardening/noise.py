"""Training under Gaussian noise, so that a vote over noisy copies of an image keeps its accuracy.

Cohen et al., "Certified Adversarial Robustness via Randomized Smoothing" (ICML 2019, arXiv 1902.02918), train so before
they vote: a model that never saw noise is often wrong under it, and its vote certifies little.

Deviations: it fine-tunes the model that is given, and noisy pixels are cut off at 0 and 1, as in the vote.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from phard_hub.defenses.immunizer import noisy
from phard_hub.defenses.trained import Trained
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy


@settings
class NoiseTraining(Trained):
    """Training on noisy images, and on no others.

    Attributes:
        sigma: standard deviation of the noise, pixels in [0, 1]; that of the vote.
    """

    sigma: Annotated[float, Field(ge=0, le=10)] = 0.25

    name = "noise-training"
    guarded = False

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> CrossEntropy:
        """Right answers under noise."""
        del original, copy, images, job
        return _Noisy(self.sigma)


class _Noisy(CrossEntropy):
    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The images of the batch under noise."""
        normal = batch.draws(purpose=2).randn(*batch.pixels.shape[1:]).to(batch.pixels)
        return noisy(batch.pixels, normal, self.sigma), batch.labels
