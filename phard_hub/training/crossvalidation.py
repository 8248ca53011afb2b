"""What a training costs in accuracy, judged on all of a defender's images and not on the few that guard it.

The images are divided into parts. For each part, the training is done without it, and then asked about it. So each
image is judged by a model that was not trained on it, and the interval is that of all images: with ten times as many
as the guard has, it is a third as wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages
from phard_hub.images.labelled import ranks
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.predictions import right_answers
from phard_hub.report.record import CrossValidated
from phard_hub.training.guard import loss_between


def _not_one(parts: int) -> int:
    if parts == 1:
        raise ValueError("one part leaves no images to train on")
    return parts


PartCount = Annotated[int, Field(ge=0, le=10), AfterValidator(_not_one)]
"""In how many parts images are divided; 0 for no cross-validation."""
Training = Callable[[LabelledImages, Job], Classifier]
"""From images and a job to what is made of a classifier with them."""


def divided(images: LabelledImages, parts: PartCount, seed: int) -> Tensor | None:
    """Which part each image is in ``(n,)``, each class spread evenly; None for 0 parts.

    Raises:
        ImagesError: a class has fewer images than there are parts, so that some training would not know it.
    """
    if not parts:
        return None
    counts = torch.bincount(images.labels, minlength=images.num_classes)
    if int(counts[list(images.classes)].min()) < parts:
        raise ImagesError(
            f"A class of {images.source} has fewer than {parts} images to train on.",
            advice="Give more images, or a smaller --cross-validate.",
        )
    return ranks(images.labels, seed).long() % parts


def cross_validate(
    train: Training, classifier: Classifier, images: LabelledImages, places: Tensor | None, job: Job
) -> CrossValidated | None:
    """Do a training once without each part of the images, and count what these cost on the part that they did not see.

    Args:
        train: called with the images of the other parts, and with a job of its own.
        classifier: what is trained; its answers are what may be lost.
        images: of the defender, without those of the guard.
        places: which part each is in, as `divided` gives it; None for no cross-validation.
        job: a training that was stopped is continued where it has a folder.
    """
    if places is None:
        return None
    before = right_answers(classifier, images)
    after, parts = torch.empty_like(before), int(places.max()) + 1
    for part in range(parts):
        job.progress("cross-validating", part, parts)
        left_out = places == part
        made = train(images.take((~left_out).nonzero().flatten()), job.part(f"part {part + 1} of {parts}"))
        after[left_out] = right_answers(made, images.take(left_out.nonzero().flatten()))
    loss = loss_between(before, after)
    return CrossValidated(parts=parts, images=len(images), points_lost=loss.points, points_at_most=loss.at_most)
