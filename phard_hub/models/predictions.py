"""What a classifier answers to many images: the one loop that predicts, and its division over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from phard_hub.errors import CheckpointError
from phard_hub.hardware import fast_autocast
from phard_hub.images import LabelledImages
from phard_hub.job import shared
from phard_hub.models.classifier import Classifier, frozen


def predictions(classifier: Classifier, batches: Iterable[Tensor], *, fast: bool = False) -> Tensor:
    """Predicted classes ``(N,)`` of pixels, batch by batch; the classifier is left as it was.

    Args:
        classifier: what is asked.
        batches: pixels ``(n, C, H, W)`` in [0, 1], where the classifier is.
        fast: in the precision that is fast, and whatever the logits are, as for looks during a training.

    Raises:
        CheckpointError: some logits are not finite, so they say nothing; not if it has to be fast.
    """
    predicted = []
    with frozen(classifier):
        for pixels in batches:
            with torch.no_grad(), fast_autocast(classifier.device, enabled=fast):
                logits = classifier(pixels)
            if not fast and not logits.isfinite().all():
                raise CheckpointError("The model's logits are not finite.", advice="Its weights are far too large.")
            predicted.append(logits.argmax(1).cpu())
    return torch.cat(predicted)


def right_answers(
    classifier: Classifier, images: LabelledImages, *, shown: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """1.0 for each image that the classifier is right about and 0.0 for each other one, shape (n,); fast.

    All processes of the job have to ask, and divide the images; ``shown`` makes what the classifier sees of them.
    """

    def right(numbers: Tensor) -> list[Tensor]:
        pixels, labels = images.batch(numbers, classifier.device)
        pixels = shown(pixels) if shown else pixels
        return [predictions(classifier, [pixels], fast=True) == labels.cpu()]

    return shared(right, torch.arange(len(images)), images.at_once)[0].float()
