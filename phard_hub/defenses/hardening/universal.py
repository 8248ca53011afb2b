"""Universal: training against triggers from all classes to one, as MOTH's authors compare with it.

In their words it is their own warm-up and nothing else: for one target after the other a trigger is inverted for the
model as it is, and stamped on half of the batch. See `moth` for the source.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phard_hub.defenses.hardening.stamped import Stamped, UniversallyStamped, with_universal
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings
from phard_hub.training.batches import Batch


@settings
class Universal(UniversallyStamped):
    """Every batch is stamped with a trigger that sends all classes to one."""

    name = "universal"

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers under universal triggers."""
        del original
        return _Objective(self, copy, images, job)


class _Objective(Stamped):
    def __init__(self, settings: Universal, plain: Classifier, images: LabelledImages, job: Job) -> None:
        super().__init__(plain, images, job)
        self.settings = settings

    def stamped(self, batch: Batch, random: torch.Generator) -> Tensor:
        """The batch with the trigger for the class whose turn it is."""
        target = batch.step % self.classes
        stamps, _ = self.for_all(self.settings, target, random)
        return with_universal(batch, stamps, target, self.settings.universal_share)
