"""Random shifts and mirroring, against a slow reading, and when images are mirrored at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from phard_hub.draws import Draws
from phard_hub.evaluation.threats import evaluate
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.training.augmentation import augment, indifferent_to_mirroring
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule
from tests.small import Linear, as_classifier, trained


def slow_shift(image: np.ndarray[Any, Any], down: int, right: int) -> np.ndarray[Any, Any]:
    """Look ``down`` and ``right`` in an image ``(C, H, W)`` that is mirrored at its borders."""
    _, height, width = image.shape

    def inside(place: int, size: int) -> int:
        return -place if place < 0 else 2 * (size - 1) - place if place >= size else place

    shifted = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            shifted[:, y, x] = image[:, inside(y + down, height), inside(x + right, width)]
    return shifted


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("shape", "shift"), [((1, 8, 8), 0.25), ((3, 6, 9), 0.125), ((3, 8, 8), 0.0)], ids=str)
def test_augment_shifts_and_mirrors(shape: tuple[int, int, int], shift: float, flip: bool) -> None:
    pixels = torch.rand(64, *shape, generator=torch.Generator().manual_seed(0))
    kept = pixels.clone()
    moved = augment(pixels, Draws.seeded(1, 64), shift=shift, flip=flip)
    assert moved.shape == pixels.shape
    assert torch.equal(pixels, kept)
    assert torch.equal(moved, augment(pixels, Draws.seeded(1, 64), shift=shift, flip=flip))
    pad = round(shift * min(shape[1:]))
    assert pad == {0.25: 2, 0.125: 1, 0.0: 0}[shift]
    used = set()
    for before, after in zip(pixels.numpy(), moved.numpy(), strict=True):
        candidates = [
            (down, right, mirrored)
            for down in range(-pad, pad + 1)
            for right in range(-pad, pad + 1)
            for mirrored in ([False, True] if flip else [False])
            if np.array_equal(slow_shift(before[:, :, ::-1] if mirrored else before, down, right), after)
        ]
        assert len(candidates) == 1
        used.add(candidates[0])
    # Every shift down and to the right occurs, and with mirroring both kinds.
    assert {down for down, _, _ in used} == {right for _, right, _ in used} == set(range(-pad, pad + 1))
    assert {mirrored for _, _, mirrored in used} == ({False, True} if flip else {False})


class Seen(CrossEntropy):
    """Cross-entropy that keeps the images it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.seen.extend(batch.pixels)
        return super().loss(model, batch)


def left_or_right(mirrors: bool) -> tuple[Classifier, LabelledImages]:
    """Class 0 is bright at the top, class 1 at the bottom; or, where mirroring matters, on the left and the right."""
    pixels = torch.randint(100, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(40) % 2
    for image, label in zip(pixels, labels.tolist(), strict=True):
        half = slice(0, 4) if label == 0 else slice(4, 8)
        image[(0, slice(None), half) if mirrors else (0, half)] += 120
    mask = torch.zeros(8, 8)
    mask[(slice(None), slice(0, 4)) if mirrors else slice(0, 4)] = 1
    network = Linear(torch.stack([mask.flatten(), 1 - mask.flatten()]), torch.zeros(2))
    return as_classifier(network, 2, (1, 8, 8)), LabelledImages(pixels, labels, ("a", "b"), "halves")


@pytest.mark.parametrize("mirrors", [False, True])
def test_mirroring_is_left_out_where_it_changes_the_class(mirrors: bool) -> None:
    classifier, images = left_or_right(mirrors)
    assert evaluate(classifier, images).accuracy.value == 1
    assert indifferent_to_mirroring(classifier, images) is not mirrors
    objective = Seen()
    schedule = Schedule(steps=4, batch=40, flip=None, shift=0.0)
    trained(classifier, images, lambda *_: objective, schedule)
    originals = {image.numpy().tobytes() for image in images.batch(range(40))[0]}
    shown = {image.contiguous().numpy().tobytes() for image in objective.seen}
    assert (shown == originals) is mirrors
