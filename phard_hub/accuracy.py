"""Accuracy on images that are watched while a model is trained, and how sure a loss of it is."""

from __future__ import annotations

import torch
from torch import Tensor

from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.precision import fast_autocast, images_at_once


def right_answers(classifier: Classifier, images: LabelledImages, device: torch.device) -> Tensor:
    """1.0 for each image that the classifier is right about and 0.0 for each other one, shape (n,)."""
    hits = []
    with frozen(classifier), torch.no_grad(), fast_autocast(device):
        for numbers in torch.arange(len(images)).split(images_at_once(images.pixels.shape[1:])):
            pixels, labels = images.batch(numbers, device)
            hits.append((classifier(pixels).argmax(1) == labels).float().cpu())
    return torch.cat(hits)


def points_lost(before: Tensor | None, after: Tensor | None) -> tuple[float, float]:
    """Points of accuracy that were lost, and the standard error of that, from right answers to the same images.

    Where nobody looked, nothing is known to be lost.
    """
    if before is None or after is None:
        return 0.0, 0.0
    change = 100 * (before - after)
    return float(change.mean()), float(change.std(correction=0) / len(change) ** 0.5)
