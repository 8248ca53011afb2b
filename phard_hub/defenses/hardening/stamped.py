"""What MOTH and its two baselines share: triggers inverted in training, stamped on a part of a batch.

Batch norm is in evaluation mode throughout, as in the PyTorch version of MOTH, whose first inversion puts the model
there for good. Images are shifted and mirrored as in its Keras version for CIFAR-10. There is no weight decay.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import field, replace

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from phard_hub.defenses.inversion import Inversion, Stamps
from phard_hub.defenses.trained import Trained
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published

TWO_PASSES = as_published(782, batch=128, learning_rate=1e-4, nesterov=True, annealed=False, weight_decay=0.0)
"""Over the 50,000 images of CIFAR-10."""


@settings
class StampedTraining(Trained):
    """Training on batches of which a part carries triggers that were inverted for the model as it is."""

    schedule: Schedule = field(default_factory=lambda: replace(TWO_PASSES))

    guarded = False


@settings
class UniversallyStamped(StampedTraining):
    """The triggers send all classes to one.

    Attributes:
        universal: how the triggers are inverted.
        per_class: images of each class that they are inverted on.
        universal_share: of the images of a batch that are not of the target, those that carry the trigger.
    """

    universal: Inversion = field(default_factory=Inversion)
    per_class: PositiveInt = 10
    universal_share: Share = 0.5


@settings
class PairStamped(StampedTraining):
    """The triggers are those of pairs of classes, in both directions.

    Attributes:
        first: how the triggers of a pair are inverted on its first batch, and whenever one of them does not work.
        following: on the batches after that.
        visits: batches in a row that a pair is for.
        pair_share: of the images of the rarer class in the batch, as many of both classes carry a trigger.
        largest: triggers with larger masks, as a share of the image, are not stamped.
    """

    first: Inversion = field(default_factory=lambda: Inversion(inner_steps=200, bound=0.9))
    following: Inversion = field(default_factory=lambda: Inversion(inner_steps=50, bound=0.9, price=1e-2))
    visits: PositiveInt = 3
    pair_share: Share = 0.1
    largest: Share = 0.25


class Stamped(CrossEntropy):
    """Cross-entropy under the true labels on batches of which a part is stamped."""

    def __init__(self, plain: Classifier, images: LabelledImages, job: Job) -> None:
        super().__init__()
        self.plain, self.images = plain, images
        self.device, self.classes = job.accelerator.device, images.num_classes
        self.shape = images.shape
        self.limit = float(math.prod(self.shape))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss on the batch; the statistics of batch norm stay."""
        model.eval()
        return super().loss(model, batch)

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch, partly stamped; inversion looks at all images, in every process."""
        whole = batch.whole()
        pixels = self.stamped(whole, batch.draws(purpose=2).random)
        return pixels[batch.places], batch.labels

    @abstractmethod
    def stamped(self, batch: Batch, random: torch.Generator) -> Tensor:
        """The pixels of a whole batch, some of them with triggers."""

    def invert(
        self,
        inversion: Inversion,
        pixels: Tensor,
        which: Tensor,
        targets: Tensor,
        start: Stamps,
        random: torch.Generator,
    ) -> Stamps:
        """Triggers for the model as it is, at a cost that is counted."""
        self.sample_gradients += inversion.inner_steps * len(pixels)
        return inversion.invert(self.plain, pixels, which, targets, start, random)

    def for_all(self, settings: UniversallyStamped, target: int, random: torch.Generator) -> tuple[Stamps, Tensor]:
        """A trigger that sends all other classes to one, and how much of the loss it took from each class, ``(K,)``."""
        labels = self.images.labels
        order = torch.randperm(len(labels), generator=random)
        chosen = torch.cat(
            [order[labels[order] == k][: settings.per_class] for k in range(self.classes) if k != target]
        )
        pixels, classes = self.images.batch(chosen, self.device)
        which, targets = torch.zeros_like(classes), torch.tensor([target], device=self.device)
        start = Stamps.drawn(1, self.shape, random, self.device)
        found = self.invert(settings.universal, pixels, which, targets, start, random)
        before, after = (self._losses(start(pixels, which), target), self._losses(found(pixels, which), target))
        gone = (before - after) / before.clamp(min=1e-6)
        sums, counts = (
            torch.zeros(self.classes, device=self.device).index_add(0, classes, each)
            for each in (gone, torch.ones_like(gone))
        )
        return found, sums / counts.clamp(min=1)

    @torch.no_grad()
    def _losses(self, pixels: Tensor, target: int) -> Tensor:
        self.sample_forwards += len(pixels)
        wanted = torch.full((len(pixels),), target, device=self.device)
        return nn.functional.cross_entropy(self.plain(pixels).float(), wanted, reduction="none")

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """Both counters."""
        return {**super().state_dict(), "sample_forwards": self.sample_forwards}

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self.sample_forwards = int(state["sample_forwards"])


class PairwiseStamped(Stamped):
    """Triggers for both directions of one pair of classes at a time, which stay for some batches."""

    def __init__(self, settings: PairStamped, plain: Classifier, images: LabelledImages, job: Job) -> None:
        super().__init__(plain, images, job)
        self.pairs = settings
        count = self.classes**2
        self.mask = torch.zeros(count, 1, *self.shape[1:], device=self.device)
        self.pattern = torch.zeros(count, *self.shape, device=self.device)
        self.size = torch.full((count,), self.limit, device=self.device)
        self.pair = torch.tensor([0, 1])

    def with_pair(self, batch: Batch, visit: int, random: torch.Generator) -> Tensor:
        """The batch with both triggers of the pair on a share of its two classes, after they followed the model.

        Args:
            batch: the whole of it.
            visit: which of the batches of this pair it is, from 0.
            random: source of what is drawn.
        """
        first, second = self.pair.tolist()
        places = [(batch.labels == k).nonzero().flatten() for k in (first, second)]
        if not all(len(each) for each in places):
            return batch.pixels
        rows = torch.tensor([first * self.classes + second, second * self.classes + first], device=self.device)
        stamps = self._inverted(batch, places, rows, visit, random)
        self.mask[rows], self.pattern[rows], self.size[rows] = stamps.mask, stamps.pattern, stamps.size
        count = round(self.pairs.pair_share * min(len(each) for each in places))
        pixels = batch.pixels
        for number, each in enumerate(places):
            if stamps.size[number] < self.limit * self.pairs.largest:
                pixels = _with(pixels, each[: max(1, count)], stamps.of(slice(number, number + 1)))
        return pixels

    def _inverted(
        self, batch: Batch, places: list[Tensor], rows: Tensor, visit: int, random: torch.Generator
    ) -> Stamps:
        start = Stamps(self.mask[rows], self.pattern[rows], self.size[rows])
        settings, fresh = self.pairs, bool(start.failed.any())
        if fresh:
            drawn = Stamps.drawn(2, self.shape, random, self.device)
            never = start.failed[:, None, None, None]
            mask, pattern = torch.where(never, drawn.mask, start.mask), torch.where(never, drawn.pattern, start.pattern)
            start = Stamps(mask, pattern, start.size)
        inversion = settings.first if visit == 0 or fresh else settings.following
        which = torch.cat([torch.full_like(each, number) for number, each in enumerate(places)])
        return self.invert(
            inversion, batch.pixels[torch.cat(places)], which, self.pair.flip(0).to(self.device), start, random
        )

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """The counters, and the triggers of all pairs."""
        return {
            **super().state_dict(),
            "mask": self.mask,
            "pattern": self.pattern,
            "size": self.size,
            "pair": self.pair,
        }

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state.

        Raises:
            ValueError: a number in it is none that training could have come to.
        """
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        if any(((tensors[name] < 0) | (tensors[name] > 1)).any() for name in ("mask", "pattern")):
            raise ValueError("the masks or patterns are out of their range")
        if not bool(((tensors["pair"] >= 0) & (tensors["pair"] < self.classes)).all()):
            raise ValueError("the pair is of classes that there are not")
        super().load_state_dict(state)
        for name in ("mask", "pattern", "size"):
            setattr(self, name, tensors[name].to(self.device))
        self.pair = tensors["pair"].cpu()


def with_universal(batch: Batch, stamps: Stamps, target: int, share: float) -> Tensor:
    """The pixels of a batch with one trigger on a share of the images that are not of its target."""
    others = (batch.labels != target).nonzero().flatten()
    return _with(batch.pixels, others[: round(share * len(others))], stamps)


def _with(pixels: Tensor, chosen: Tensor, stamps: Stamps) -> Tensor:
    """The pixels with one trigger on the chosen images."""
    changed = pixels.clone()
    changed[chosen] = stamps(pixels[chosen], torch.zeros_like(chosen))
    return changed
