"""Which images to use, and what each of them is for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from phard_hub.errors import ImagesError
from phard_hub.images.labelled import LabelledImages
from phard_hub.images.loading import load_images
from phard_hub.images.matching import chosen_classes
from phard_hub.images.matching import read_labels as read_labels
from phard_hub.images.overlap import overlap
from phard_hub.job import Progress, silent
from phard_hub.report.record import TESTED_ON
from phard_hub.report.wording import printable, public_name
from phard_hub.settings import settings

if TYPE_CHECKING:
    from phard_hub.models.classifier import Classifier

LEAST = 4
"""Images of each class that measuring needs."""
_A_FIFTH = "Without --test-images a fifth is measured with: give 20 images of each class, or --test-images."
_A_TENTH = "A tenth of --test-images guards the accuracy: give 5 of each class."
_log = logging.getLogger(__name__)


@settings
class DataOptions:
    """Which images to use and how to read them; see `phard_hub.images.load_images`.

    Attributes:
        images: data set to measure on or to harden with.
        test_images: data set that is never trained on; without it a fifth of ``images`` is kept apart.
        split: of ``images``.
        test_split: of ``test_images``.
        image_column: found by its type if None.
        label_column: found by its type if None.
        labels: what class names of the data sets mean that are not the model's: the model's name of each, or all of
            them in the order of the model's.
        classes: names of the model's classes to measure and harden between; None for all of them.
        only_present_classes: whether these are the classes that ``images`` has images of.
        max_images: balanced choice of at most so many of each data set.
        skip_broken: leave out images that cannot be decoded, and count them.
    """

    images: str
    test_images: str | None = None
    split: str | None = None
    test_split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    labels: dict[str, str] | tuple[str, ...] | None = field(default=None, hash=False)
    classes: str | tuple[str, ...] | None = None
    only_present_classes: bool = False
    max_images: Annotated[int, Field(ge=8)] | None = 50_000
    skip_broken: bool = False


@dataclass(frozen=True)
class Data:
    """Images by what they are for: ``train`` hardens, ``validation`` guards, ``test`` is reported.

    ``matched`` says how class names were matched to the model's; it is empty where all are equal. ``overlap`` says how
    many test images are training images, too; it is empty where none is. ``skipped`` images were broken and left out.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    name: str
    matched: str = ""
    overlap: str = ""
    skipped: int = 0


def load_data(
    classifier: Classifier, data: DataOptions, seed: int, progress: Progress = silent, *, only_test: bool = False
) -> Data:
    """Load the images on the classifier's canvas and divide them by purpose.

    The guard's validation images are a tenth of the test images where those are given, because a checkpoint
    knows its own training images by heart; otherwise a tenth of all. They are left out of the other two. Where nothing
    is hardened, all of ``test_images`` are test images or, if there are none, all of ``images``.

    Raises:
        ImagesError: images cannot be loaded, or more than one per cent of the test images are training images, too.
    """
    chosen = chosen_classes(data.classes, classifier.labels) if data.classes is not None else ()
    train = _load(classifier, data, data.images, data.split, seed, progress, chosen)
    name, matched, skipped = public_name(data.images), [train.matched], train.skipped
    nothing = train.take([])
    if data.test_images is None and only_test:
        return Data(nothing, nothing, train, name, train.matched, skipped=skipped)
    if data.test_images is None:
        given, dataset, advice = train, name, _A_FIFTH
        train, test = train.split(0.3, seed)
    else:
        given = test = _load(classifier, data, data.test_images, data.test_split, seed, progress, train.chosen)
        dataset, advice = public_name(data.test_images), _A_TENTH
        matched.append(test.matched)
        skipped += test.skipped
        name = f"{name}{TESTED_ON}{public_name(data.test_images)}"
    if common := overlap(train, test):
        _log.warning("%s", common)
    if only_test:
        train = validation = nothing
    else:
        test, validation = test.split(1 / 10 if data.test_images else 1 / 3, seed)
    _require_enough(given, test, dataset, advice)
    return Data(train, validation, test, name, "; ".join(dict.fromkeys(filter(None, matched))), common, skipped)


def _require_enough(given: LabelledImages, test: LabelledImages, dataset: str, advice: str) -> None:
    """Count the images of a class as the user does, who does not see that some of them are kept apart.

    Raises:
        ImagesError: measuring would refuse the test images.
    """
    counts = torch.bincount(test.labels, minlength=test.num_classes).tolist()
    fewest = min(test.classes, key=lambda k: counts[k])
    if counts[fewest] < LEAST:
        had, left = int((given.labels == fewest).sum()), counts[fewest]
        problem = f"{dataset} has {had} images of class {printable(test.names[fewest])}, of which {left} are left"
        problem += f" to measure with; {LEAST} are the least, and 50 or more mean something."
        raise ImagesError(problem, advice=advice)


def _load(
    classifier: Classifier,
    data: DataOptions,
    dataset: str,
    split: str | None,
    seed: int,
    progress: Progress,
    chosen: Sequence[int],
) -> LabelledImages:
    return load_images(
        dataset,
        labels=classifier.labels,
        image_size=classifier.image_size,
        channels=classifier.channels,
        split=split,
        image_column=data.image_column,
        label_column=data.label_column,
        said=data.labels,
        chosen=chosen,
        only_present=data.only_present_classes and not chosen,
        max_images=data.max_images,
        skip_broken=data.skip_broken,
        resample=classifier.resize.resample if classifier.resize else "bilinear",
        stretch=classifier.resize.stretches if classifier.resize else False,
        seed=seed,
        progress=partial(progress, "loading images"),
    )
