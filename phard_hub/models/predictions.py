"""What a classifier answers to many images."""

from __future__ import annotations

import torch
from torch import Tensor

from phard_hub.hardware import fast_autocast, images_at_once
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier, frozen


def right_answers(classifier: Classifier, images: LabelledImages, device: torch.device) -> Tensor:
    """1.0 for each image that the classifier is right about and 0.0 for each other one, shape (n,)."""
    hits = []
    with frozen(classifier), torch.no_grad(), fast_autocast(device):
        for numbers in torch.arange(len(images)).split(images_at_once(images.pixels.shape[1:])):
            pixels, labels = images.batch(numbers, device)
            hits.append((classifier(pixels).argmax(1) == labels).float().cpu())
    return torch.cat(hits)
