"""FT-SAM as published: fine-tuning by adaptive sharpness-aware steps, with smoothed labels.

Zhu et al., "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization" (ICCV 2023, arXiv
2304.11823), with the settings of BackdoorBench for 5 % of CIFAR-10: radius 2 (8 for GTSRB and Tiny ImageNet), a hundred
passes (50 for GTSRB). The statistics of batch norm are those of the first of the two passes of a step.

Deviation: the smoothed tenth of a label goes to all classes alike, the true one included. Our own variant is
`sharpness-aware`.
"""

from __future__ import annotations

from dataclasses import field

from phard_hub.defenses.trained import Trained
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import BelowOne, settings
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published


@settings
class FtSam(Trained):
    """Fine-tuning whose every gradient is taken uphill.

    Attributes:
        smoothing: share of a label that is spread over all classes.
    """

    schedule: Schedule = field(default_factory=lambda: as_published(1000, batch=256, learning_rate=0.01, sharpness=2.0))
    smoothing: BelowOne = 0.1

    name = "ft-sam"
    guarded = False
    forgets = True

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> CrossEntropy:
        """Smoothed labels on clean images."""
        del original, copy, images, job
        return CrossEntropy(smoothing=self.smoothing)
