"""Fine-tuning by sharpness-aware steps: what was planted sits in a narrow minimum, and is left behind.

An own variant of Zhu et al., "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization" (FT-SAM,
ICCV 2023, arXiv 2304.11823), which is `ft-sam` as published: plain cross-entropy, the gradient taken uphill
(`phard_hub.training.sharpness`).

It forgets more than is wanted and then goes a quarter of the way back: on the straight line between the weights, the
accuracy returns sooner than the backdoor. Averaging the weights before and after fine-tuning is of Wortsman et al.,
"Robust fine-tuning of zero-shot models" (WiSE-FT, CVPR 2022, arXiv 2109.01903).

Deviations: the loop's own schedule and average of the weights; a higher learning rate (0.1 instead of 0.01), and
gradients that are not cut; some images are stamped with triggers drawn at random, under their own labels; and the way
back.
"""

from __future__ import annotations

from dataclasses import field

from phard_hub.defenses.removal.finetuning import Forgetting, RandomlyStamped
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings
from phard_hub.training.schedule import Schedule


@settings
class SharpnessAware(Forgetting):
    """Sharpness-aware fine-tuning with random triggers, for few images, too."""

    # Gradients taken uphill are long, and it is their length that moves the weights out of the narrow minimum.
    schedule: Schedule = field(
        default_factory=lambda: Schedule(steps=400, learning_rate=0.1, clip=100.0, sharpness=2.0, interpolation=0.75)
    )

    name = "sharpness-aware"

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> RandomlyStamped:
        """Right answers on clean and randomly stamped images."""
        del original, copy, images, job
        return RandomlyStamped(self)
