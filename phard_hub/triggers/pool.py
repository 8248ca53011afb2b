"""Images by class, from which triggers are fitted, chosen and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages

UNIVERSAL = -1
"""Source of a universal trigger: all classes but its target."""


@dataclass(frozen=True)
class Directions:
    """What each trigger of a bank does: ``source (P,)`` (a class, or `UNIVERSAL`) to ``target (P,)``."""

    source: Tensor
    target: Tensor

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]], universal: Sequence[int]) -> Directions:
        """The given pairs, then a universal trigger to each of these targets."""
        directions = [*pairs, *((UNIVERSAL, target) for target in universal)]
        source, target = zip(*directions, strict=True)
        return cls(torch.tensor(source), torch.tensor(target))

    def __len__(self) -> int:
        """The number of triggers."""
        return len(self.source)


def all_pairs(classes: Sequence[int]) -> list[tuple[int, int]]:
    """All ordered pairs of different classes."""
    return list(permutations(classes, 2))


@dataclass(frozen=True)
class Pool:
    """Images sorted by class: class k holds ``counts[k]`` of them from ``starts[k]`` on, and ``classes`` are in use."""

    images: LabelledImages
    classes: Tensor
    starts: Tensor
    counts: Tensor

    @classmethod
    def of(cls, images: LabelledImages) -> Pool:
        """Sort images by class.

        Raises:
            ImagesError: a class has no image.
        """
        counts = torch.bincount(images.labels, minlength=images.num_classes)
        if missing := [k for k in images.classes if not counts[k]]:
            empty = ", ".join(images.names[k] for k in missing[:5])
            raise ImagesError(f"No image of class {empty} in {images.source}.", advice="Every class needs images.")
        in_order = images.take(images.labels.argsort(stable=True))
        return cls(in_order, torch.tensor(images.classes), counts.cumsum(0) - counts, counts)

    def draw(self, directions: Directions, images: int, random: torch.Generator) -> Tensor:
        """Random image numbers ``(P, images)`` from the source classes of each direction."""
        shape = (len(directions), images)
        source = directions.source[:, None].expand(shape)
        others = torch.randint(len(self.classes) - 1, shape, generator=random)
        others = others + (others >= torch.searchsorted(self.classes, directions.target)[:, None])
        classes = torch.where(source == UNIVERSAL, self.classes[others], source)
        return self.starts[classes] + (torch.rand(shape, generator=random) * self.counts[classes]).long()

    def all_of(self, source: int, target: int, at_most: int) -> Tensor:
        """Numbers of images of the source class; for a universal trigger, the same share of each class but its target.

        With more classes than ``at_most``, every so many classes give one image each. Universal triggers get different
        images for each target, as far as there are so many: if a few hard images were in all of them, the mean over the
        targets would be off by what chance made of these few.
        """
        if source != UNIVERSAL:
            return self.starts[source] + torch.arange(min(int(self.counts[source]), at_most))
        classes, turn = [k for k in self.classes.tolist() if k != target], self.classes.tolist().index(target)
        every = -(-len(classes) // at_most)
        classes = classes[turn % every :: every]
        share = -(-at_most // len(classes))
        return torch.cat([self._share_of(k, share, turn) for k in classes])

    def _share_of(self, source: int, share: int, turn: int) -> Tensor:
        """Numbers of so many images of a class; at the next turn, of the next ones."""
        count = int(self.counts[source])
        return self.starts[source] + (turn * share + torch.arange(min(count, share))) % count

    def read(self, numbers: Tensor, device: torch.device) -> Tensor:
        """Pixels ``(N, C, H, W)`` in [0, 1] of the numbered images."""
        return self.images.batch(numbers, device)[0]


class Pools(NamedTuple):
    """Images for three purposes, none of them for two: to fit triggers, to choose among them, to judge the chosen."""

    fit: Pool
    choose: Pool
    judge: Pool


def three_sets(images: LabelledImages, fit: int, choose: int, judge: int, seed: int) -> Pools:
    """Divide images, at most so many of each class for each purpose; scarce classes are divided in that proportion.

    Raises:
        ImagesError: a class has fewer than four images.
    """
    random = torch.Generator().manual_seed(seed)
    sets: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    wanted = fit + choose + judge
    for k in images.classes:
        numbers = (images.labels == k).nonzero().flatten()
        if len(numbers) < 4:
            raise ImagesError(
                f"Class {images.names[k]} has {len(numbers)} images in {images.source}.",
                advice="Measuring needs at least 4 images of every class, 250 or more to mean something.",
            )
        numbers = numbers[torch.randperm(len(numbers), generator=random)][:wanted]
        first = max(1, round(len(numbers) * fit / wanted))
        second = max(1, round(len(numbers) * choose / wanted))
        for found, part in zip(sets, numbers.tensor_split((first, first + second)), strict=True):
            found.append(part)
    return Pools(*(Pool.of(images.take(torch.cat(found))) for found in sets))
