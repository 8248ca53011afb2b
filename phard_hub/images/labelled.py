"""Images of one size with their classes, and how they are divided and chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phard_hub.errors import ImagesError
from phard_hub.hardware import images_at_once
from phard_hub.images import room


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of one size with the index of the class that each shows.

    Attributes:
        stored: uint8 ``(M, C, H, W)``, pixels of these images; of others, too, where ``rows`` says which are meant.
        labels: int64 ``(N,)``, each in 0..K-1.
        names: The K class names.
        source: Where they came from: data set, revision and split, and how many of its images these are.
        matched: How the data set's class names were matched to these; empty where they are equal.
        chosen: Numbers of the classes that are looked at, ascending; empty for all of them.
        skipped: How many images of the data set were broken and left out.
        rows: int64 ``(N,)``, where in ``stored`` each image lies; None if they are all images there, in order.
    """

    stored: Tensor
    labels: Tensor
    names: tuple[str, ...]
    source: str
    matched: str = ""
    chosen: tuple[int, ...] = ()
    skipped: int = 0
    rows: Tensor | None = None

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """K, the number of class names."""
        return len(self.names)

    @property
    def classes(self) -> tuple[int, ...]:
        """Numbers of the classes that are looked at: all, or those that somebody chose."""
        return self.chosen or tuple(range(self.num_classes))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of each image: (C, H, W)."""
        _, channels, height, width = self.stored.shape
        return channels, height, width

    @property
    def pixels(self) -> Tensor:
        """uint8 ``(N, C, H, W)``, all of them in memory; see `read` for some of many."""
        return self.stored if self.rows is None else self.stored[self.rows]

    @property
    def at_once(self) -> int:
        """How many of them a classifier looks at in one pass."""
        return images_at_once(self.shape)

    def read(self, index: Tensor) -> Tensor:
        """Pixels of the images at these positions, uint8 ``(n, C, H, W)``."""
        return self.stored[index if self.rows is None else self.rows[index]]

    def take(self, index: Tensor | Sequence[int]) -> Self:
        """The images at these positions, in this order; many or large ones are not copied."""
        index = torch.as_tensor(index, dtype=torch.int64)
        taken = replace(self, labels=self.labels[index])
        if len(index) * math.prod(self.shape) > room.LARGEST_IN_MEMORY:
            return replace(taken, rows=index if self.rows is None else self.rows[index])
        return replace(taken, stored=self.read(index), rows=None)

    def of_class(self, k: int) -> Self:
        """All images of class ``k``."""
        return self.take((self.labels == k).nonzero().flatten())

    def batch(self, index: Tensor | Sequence[int], device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """Float pixels in [0, 1] and labels of the images at these positions, on ``device``."""
        index = torch.as_tensor(index, dtype=torch.int64)
        return self.read(index).to(device).float() / 255, self.labels[index].to(device)

    def batches(
        self, device: torch.device | str | None = None, index: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All images, or those at these positions, in batches that fit into memory; see `batch`."""
        index = torch.arange(len(self)) if index is None else index
        for numbers in index.split(self.at_once):
            yield self.batch(numbers, device)

    def split(self, part: float, seed: int = 0) -> tuple[Self, Self]:
        """Divide into (rest, part), each class in the same shares; the same seed gives the same parts.

        Args:
            part: How many images the part gets: a count, or a share if it is a float below 1.
            seed: Chooses which.

        Raises:
            ImagesError: the part or the rest would be empty.
        """
        count = round(part * len(self)) if isinstance(part, float) and part < 1 else int(part)
        if not 0 < count < len(self):
            raise ImagesError(
                f"Cannot split {count} off {len(self)} images.", advice="Give more images or split fewer off."
            )
        order = torch.argsort(ranks(self.labels, seed, relative=True), stable=True)
        return self.take(order[count:].sort().values), self.take(order[:count].sort().values)

    def sample(self, per_class: int, seed: int = 0) -> Self:
        """``per_class`` images of each class chosen at random, or all of a class that has fewer."""
        return self.take((ranks(self.labels, seed) < per_class).nonzero().flatten())


def demo_images() -> tuple[LabelledImages, LabelledImages]:
    """Handwritten digits that need no download: (1297 to train, 500 to test), 32x32, three channels.

    They are scikit-learn's ``load_digits`` (8x8, grey 0..16), enlarged bilinearly.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    large = [Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR) for image in grey]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in large]))[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(digits.target).long()
    names = tuple(str(name) for name in digits.target_names)
    return LabelledImages(pixels, labels, names, "scikit-learn digits").split(500, seed=0)


def ranks(labels: Tensor, seed: int, *, relative: bool = False, groups: Tensor | None = None) -> Tensor:
    """The place of each image in a shuffled queue of its class: 0, 1, ..., or as a share of the class.

    Taking the lowest ranks is a balanced choice, taking the lowest shares a stratified one. Where images lie
    in ``groups``, int64 ``(N,)``, that can only be read as a whole, groups are shuffled and not images, so
    that the lowest ranks lie in few groups.
    """
    generator = torch.Generator().manual_seed(seed)
    if groups is None:
        order = torch.randperm(len(labels), generator=generator)
    else:
        order = torch.argsort(torch.randperm(int(groups.max()) + 1, generator=generator)[groups], stable=True)
    queues = order[torch.argsort(labels[order], stable=True)]
    lengths = torch.bincount(labels)
    place = (torch.arange(len(labels)) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)).double()
    places = torch.empty(len(labels), dtype=torch.float64)
    places[queues] = (place + 0.5) / torch.repeat_interleave(lengths, lengths) if relative else place
    return places


def choose(
    labels: Tensor, classes: Sequence[int], max_images: int | None, seed: int, groups: Tensor | None = None
) -> Tensor:
    """The rows of these classes to use, in order: all, or a balanced choice.

    Raises:
        ImagesError: so few images cannot show all classes.
    """
    rows = torch.isin(labels, torch.tensor(classes)).nonzero().flatten()
    if max_images is None or max_images >= len(rows):
        return rows
    if max_images < len(classes):
        advice = f"Allow at least {len(classes)} images."
        raise ImagesError(f"{max_images} images cannot show {len(classes)} classes.", advice=advice)
    places = ranks(labels[rows], seed, groups=None if groups is None else groups[rows])
    return rows[torch.argsort(places, stable=True)[:max_images]].sort().values
