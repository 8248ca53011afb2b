"""Which images to use, and what each of them is for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from phard_hub.images.labelled import LabelledImages
from phard_hub.images.loading import load_images
from phard_hub.images.matching import chosen_classes
from phard_hub.images.matching import read_labels as read_labels
from phard_hub.images.overlap import overlap
from phard_hub.job import Progress, silent
from phard_hub.report.record import TESTED_ON
from phard_hub.report.wording import public_name
from phard_hub.settings import settings

if TYPE_CHECKING:
    from phard_hub.models.classifier import Classifier

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


@dataclass(frozen=True)
class Data:
    """Images by what they are for: ``train`` hardens, ``validation`` guards, ``test`` is reported.

    ``matched`` says how class names were matched to the model's; it is empty where all are equal. ``overlap`` says how
    many test images are training images, too; it is empty where none is.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    name: str
    matched: str = ""
    overlap: str = ""


def load_data(
    classifier: Classifier, data: DataOptions, seed: int, progress: Progress = silent, *, only_test: bool = False
) -> Data:
    """Load the images on the classifier's canvas and divide them by purpose.

    The guard's validation images are a tenth of the test images where those are given, because a checkpoint
    knows its own training images by heart; otherwise a tenth of all. They are left out of the other two. Where nothing
    is hardened, all images are test images: those of ``test_images``, if there are any.

    Raises:
        ImagesError: images cannot be loaded, or more than one per cent of the test images are training images, too.
    """
    if only_test and data.test_images is not None:
        data = replace(data, images=data.test_images, split=data.test_split, test_images=None)
    chosen = chosen_classes(data.classes, classifier.labels) if data.classes is not None else ()
    train = _load(classifier, data, data.images, data.split, seed, progress, chosen)
    name, matched = public_name(data.images), [train.matched]
    if only_test:
        nothing = train.take([])
        return Data(nothing, nothing, train, name, train.matched)
    if data.test_images is None:
        train, test = train.split(0.3, seed)
    else:
        test = _load(classifier, data, data.test_images, data.test_split, seed, progress, train.chosen)
        matched.append(test.matched)
        name = f"{name}{TESTED_ON}{public_name(data.test_images)}"
    if common := overlap(train, test):
        _log.warning("%s", common)
    test, validation = test.split(1 / 10 if data.test_images else 1 / 3, seed)
    return Data(train, validation, test, name, "; ".join(dict.fromkeys(filter(None, matched))), common)


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
        resample=classifier.resize.resample if classifier.resize else "bilinear",
        stretch=classifier.resize.stretches if classifier.resize else False,
        seed=seed,
        progress=partial(progress, "loading images"),
    )
