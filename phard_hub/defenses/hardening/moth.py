"""MOTH: the pairs of classes that come apart fastest are moved apart, each by triggers for both directions.

Tao et al., "Model Orthogonalization: Class Distance Hardening in Neural Networks for Better Security" (S&P 2022), as in
the PyTorch version of Gwinhen/MOTH. A warm-up inverts a universal trigger for each class, which says which pairs flip
easily. Then a pair at a time stays for three batches, chosen first by that, later by how fast its triggers grow, and in
three of ten cases by chance.

Deviations: the model is given as it is, and not trained adversarially first; a class that is missing in a batch leaves
its pair out of that batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phard_hub.defenses.hardening.stamped import (
    PairStamped,
    PairwiseStamped,
    UniversallyStamped,
    with_universal,
)
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch


@settings
class Moth(UniversallyStamped, PairStamped):
    """Training against triggers of pairs of classes that are chosen by how they come apart.

    Attributes:
        chance: how often a pair is drawn, and not chosen.
    """

    chance: Share = 0.3

    name = "moth"

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers under the triggers of chosen pairs."""
        del original
        return _Objective(self, copy, images, job)


class _Objective(PairwiseStamped):
    def __init__(self, settings: Moth, plain: Classifier, images: LabelledImages, job: Job) -> None:
        super().__init__(settings, plain, images, job)
        self.settings = settings
        # Of each ordered pair: how easily it flips, the size of its trigger, how fast that grows.
        self.ease, self.known, self.growth = torch.zeros(3, self.classes, self.classes, device=self.device)
        self.seen = torch.zeros(2, device=self.device)  # sizes of the present pair's triggers, over its batches

    def stamped(self, batch: Batch, random: torch.Generator) -> Tensor:
        """The batch with a universal trigger in the warm-up, and after that with those of a pair."""
        if batch.step < self.classes:
            return self._warm_up(batch, random)
        after = batch.step - self.classes
        visit = after % self.pairs.visits
        if visit == 0:
            self.pair, self.seen = self._choose(after, random), torch.zeros_like(self.seen)
        pixels = self.with_pair(batch, visit, random)
        self._note(visit)
        return pixels

    def _warm_up(self, batch: Batch, random: torch.Generator) -> Tensor:
        target = batch.step
        stamps, ease = self.for_all(self.settings, target, random)
        self.ease[:, target], self.known[:, target] = ease, stamps.size
        for other in range(self.classes):
            for row in (other * self.classes + target, target * self.classes + other):
                self.mask[row], self.pattern[row], self.size[row] = stamps.mask[0], stamps.pattern[0], stamps.size[0]
        if target == self.classes - 1:
            self.growth = self.known / self.known.max()
        return with_universal(batch, stamps, target, self.settings.universal_share)

    def _choose(self, after: int, random: torch.Generator) -> Tensor:
        """The next pair, smaller class first."""
        pairs = torch.triu_indices(self.classes, self.classes, offset=1)
        if torch.rand((), generator=random) < self.settings.chance:
            return pairs[:, int(torch.randint(pairs.shape[1], (), generator=random))]
        late = min(0.1 * after / 100, 1.0)
        worth = (1 - late) * (self.ease + self.ease.T) + late * (self.growth + self.growth.T)
        return pairs[:, int(worth.cpu()[pairs[0], pairs[1]].argmax())]

    def _note(self, visit: int) -> None:
        """Remember the sizes, and after the last batch of the pair how fast they grew."""
        first, second = self.pair.tolist()
        both = torch.tensor([first * self.classes + second, second * self.classes + first])
        self.seen = self.seen + self.size[both]
        if visit < self.pairs.visits - 1:
            return
        for (source, target), total in zip(((first, second), (second, first)), self.seen, strict=True):
            new, old = total / self.pairs.visits, self.known[source, target]
            self.growth[source, target] = (self.growth[source, target] + (new - old) / old) / 2
            self.known[source, target] = new

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """The triggers, and what decides on the next pair."""
        return {**super().state_dict(), **{name: getattr(self, name) for name in _FOLLOWING}}

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state.

        Raises:
            ValueError: a number in it is none that training could have come to.
        """
        super().load_state_dict(state)
        for name in _FOLLOWING:
            setattr(self, name, torch.as_tensor(state[name]).to(self.device))


_FOLLOWING = ("ease", "known", "growth", "seen")
