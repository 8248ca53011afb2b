"""Fine-tuning by sharpness-aware steps: what was planted sits in a narrow minimum, and is left behind.

Zhu et al., "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization" (FT-SAM, ICCV 2023, arXiv
2304.11823): plain cross-entropy, the gradient taken uphill (`phard_hub.sharpness`).

Deviations: the loop's own schedule and average of the weights; and some images are stamped with triggers drawn at
random, under their own labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from accelerate import Accelerator

from phard_hub.defenses.base import Defense
from phard_hub.defenses.finetuning import RandomlyStamped
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.training import Schedule
from phard_hub.triggers.bank import Parts


@dataclass(frozen=True, kw_only=True)
class SharpnessAware(Defense):
    """Sharpness-aware fine-tuning with random triggers.

    It removes what was planted, with few images, too; class distances it leaves about as they are.

    Attributes:
        random: images with random triggers in a step, as a share of the clean ones.
        random_budget: their largest size, in grey levels (0-255) RMS.
        parts: what the random triggers are made of.
    """

    schedule: Schedule = field(default_factory=lambda: Schedule(steps=400, learning_rate=0.01, sharpness=2.0))
    random: float = 0.25
    random_budget: float = 40.0
    parts: Parts = field(default_factory=Parts)

    name = "sharpness-aware"
    task = "forgetting"
    guarded = False

    def objective(
        self, original: Classifier, copy: Classifier, images: LabelledImages, accelerator: Accelerator, seed: int
    ) -> RandomlyStamped:
        """Right answers on clean and randomly stamped images."""
        del original, copy, images
        return RandomlyStamped(self.random, self.random_budget, self.parts, accelerator, seed)
