"""FST as published: the head starts anew and is pushed away from the original one, in every step.

Min et al., "Towards Stable Backdoor Purification through Feature Shift Tuning" (NeurIPS 2023, arXiv 2310.01875), with
the settings of their code: plain SGD, ten passes; its 2 % of CIFAR-10 are 80 steps, 5 % are 200.

Deviation: the head has the length of the original one when a step begins, and not yet when it ends. Our own variant is
`feature-shift`.
"""

from __future__ import annotations

from dataclasses import field

from pydantic import NonNegativeFloat
from torch import Tensor, nn

from phard_hub.defenses.removal.featureshift import TurnedAway
from phard_hub.defenses.trained import Trained
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.head import heads
from phard_hub.settings import settings
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published


@settings
class FeatureShiftTuning(Trained):
    """Fine-tuning from a head drawn anew, and away from the original one.

    Attributes:
        weight: of the inner product with the original head.
    """

    schedule: Schedule = field(default_factory=lambda: as_published(200, batch=128, learning_rate=0.01))
    weight: NonNegativeFloat = 0.1

    name = "fst"
    guarded = False
    forgets = True

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers by a head far from the original one.

        Raises:
            InputError: the network does not end in a linear layer.
        """
        del original, images, job
        if not heads(copy):
            raise InputError("FST needs a network that ends in a linear layer.", advice="Leave it out for this model.")
        return _Objective(self, copy)


class _Objective(CrossEntropy):
    def __init__(self, settings: FeatureShiftTuning, copy: Classifier) -> None:
        super().__init__()
        self.heads = TurnedAway(copy, settings.weight)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss on the batch, and the push."""
        self.heads.keep_norm()
        return super().loss(model, batch) + self.heads.push()
