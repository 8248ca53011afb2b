"""Pairwise: training against the triggers of all pairs of classes in turn, as MOTH's authors compare with it.

No code of it is public. This is MOTH (`moth`) without its warm-up and without choosing: all pairs come one after the
other, and each takes as many batches. In MOTH's supplement it moves the classes of TrojAI's models as far, and takes
eleven times as long, because there it goes on until all pairs had their time; here it is given equal time.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from phard_hub.defenses.hardening.stamped import PairStamped, PairwiseStamped
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings
from phard_hub.training.batches import Batch


@settings
class Pairwise(PairStamped):
    """Every batch is stamped with the triggers of a pair of classes, in both directions."""

    name = "pairwise"

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers under the triggers of all pairs."""
        del original
        return _Objective(self, copy, images, job)


class _Objective(PairwiseStamped):
    def stamped(self, batch: Batch, random: torch.Generator) -> Tensor:
        """The batch with the triggers of the pair whose turn it is."""
        turn, visit = divmod(batch.step, self.pairs.visits)
        every = list(combinations(range(self.classes), 2))
        self.pair = torch.tensor(every[turn % len(every)])
        return self.with_pair(batch, visit, random)
