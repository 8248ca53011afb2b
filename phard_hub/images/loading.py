"""From a data set to the images of a classifier: its classes, its size, its channels."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from phard_hub.errors import ImagesError
from phard_hub.images.classes import class_indices, require_classes
from phard_hub.images.columns import find_columns
from phard_hub.images.decoding import FILTERS, MODES, decode, place
from phard_hub.images.disk import shown_path
from phard_hub.images.labelled import LabelledImages, choose
from phard_hub.images.matching import Said, shown
from phard_hub.images.room import Pixels, filled
from phard_hub.images.sources import Wanted, dataset_errors, open_table
from phard_hub.images.tables import Raw, Table
from phard_hub.report.wording import printable

Progress = Callable[[int, int], None]
"""Called now and then with (images done, images in all)."""

_BATCH = 256
_log = logging.getLogger(__name__)


def load_images(
    dataset: str,
    *,
    labels: Sequence[str],
    image_size: tuple[int, int],
    channels: int = 3,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    said: Said | None = None,
    chosen: Sequence[int] = (),
    only_present: bool = False,
    max_images: int | None = None,
    resample: str = "bilinear",
    stretch: bool = False,
    seed: int = 0,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> LabelledImages:
    """Load images for a classifier, with its own labels and at its own size.

    Classes are matched by name, whatever their case and whether words are joined by spaces, ``_`` or ``-``; names
    that are numbers, by number. ``matched`` of the result says so, and a warning, if any name differs.
    With ``max_images``, a data set of more than 1 GiB is neither downloaded nor copied as a whole: of parquet
    files, the labels are read and then the row groups that the choice needs; other formats are streamed until
    there are enough images of each class. ``source`` of the result says how many images were read.

    Args:
        dataset: A folder with one sub-folder per class, a folder or pattern of parquet files, one
            parquet file, a CSV file of paths and labels, a folder that `save_to_disk` wrote, or the id
            of a data set on the Hub, as ``org/data``, ``org/data:config``, ``org/data@revision`` or
            ``org/data:config@revision``.
        labels: The classifier's class names, in the order of its logits.
        image_size: (height, width) of the canvas that all images are put on.
        channels: 3 for colour, 1 for grey.
        split: "train" if it exists, else the only one.
        image_column: Found by its type if None; so is ``label_column``.
        label_column: Class names, or numbers from 0.
        said: What class names mean that are not the model's: the model's name of each, or all of them in the order
            of the model's.
        chosen: Numbers of the classes to use, ascending; images of others are left out. Empty for all.
        only_present: Use the classes that there are images of.
        max_images: Take a balanced choice of at most so many; the others are not decoded.
        resample: The filter: nearest-exact, bilinear, bicubic or lanczos.
        stretch: Whether to change the aspect of images, instead of cutting off the longer edge.
        seed: Chooses which images ``max_images`` leaves.
        skip_broken: Leave out images that cannot be decoded; ``skipped`` of the result says which.
        progress: Told how far the decoding is.

    Raises:
        ImagesError: no such data set, columns or labels do not fit, a class is empty, an image is broken and not to
            be skipped.
        HubUnavailableError: the Hub did not answer.
        OutputError: the cache of `datasets` cannot be written, or the disk has no room for so many pixels.
    """
    if channels not in MODES or resample not in FILTERS:
        raise ImagesError(
            f"Images of {channels} channels with filter {resample!r} cannot be loaded.",
            advice=f"Use 1 or 3 channels and one of {', '.join(FILTERS)}.",
        )
    count = len(chosen or labels)
    enough = None if max_images is None else Wanted(per_class=math.ceil(max_images / count), classes=len(labels))
    table = open_table(dataset, split, enough)
    title = shown_path(dataset)
    image_column, label_column = find_columns(table.columns, image_column, label_column, labels)
    with dataset_errors(title):
        values = table.values(label_column)
    names = table.columns[label_column].names
    targets, matched = class_indices(values, names, labels, printable(label_column), said, partly=bool(chosen))
    if chosen and (others := int((~torch.isin(targets, torch.tensor(chosen))).sum())):
        _log.info("%d of %d images of %s are of other classes than the chosen ones.", others, len(targets), title)
    if only_present:
        chosen = sorted(set(targets.tolist()))
    index = choose(targets, tuple(chosen or range(len(labels))), max_images, seed, table.groups)
    require_classes(targets[index], labels, title, chosen)
    if matched:
        _log.warning("Classes of %s are matched %s.", title, matched)

    def fill(pixels: Pixels) -> dict[int, str]:
        broken: dict[int, str] = {}
        for done, raw in enumerate(_read(table, image_column, index.tolist(), title)):
            try:
                image = _decoded(raw, title, MODES[channels])
                placed = np.asarray(place(image, image_size, FILTERS[resample], stretch=stretch))
                pixels[done] = placed.reshape(*image_size, channels).transpose(2, 0, 1)
            except ImagesError:
                if not skip_broken:
                    raise
                broken[done] = raw.where
            if progress and (done % _BATCH == _BATCH - 1 or done == len(index) - 1):
                progress(done + 1, len(index))
        return broken

    pixels, broken = filled((len(index), channels, *image_size), fill)
    source = table.describe(len(index))
    images = LabelledImages(pixels, targets[index], tuple(labels), source, matched, tuple(chosen))
    return _without(images, broken, title) if broken else images


def _decoded(raw: Raw, dataset: str, mode: str) -> Image.Image:
    if raw.problem is not None:
        raise raw.problem
    return decode(raw.data, f"{raw.where} of {dataset}", mode)


def _without(images: LabelledImages, broken: Mapping[int, str], dataset: str) -> LabelledImages:
    """The images but for the broken ones, and how many those are.

    Raises:
        ImagesError: a class has no other images.
    """
    kept = images.take([k for k in range(len(images)) if k not in broken])
    require_classes(kept.labels, images.names, f"{dataset} without its {len(broken)} broken images", images.chosen)
    skipped = f"{len(broken)} of {len(images)} images of {dataset} could not be decoded and were left out"
    _log.warning("%s: %s.", skipped, shown([*broken.values()]))
    return replace(kept, source=f"{images.source}; left out: {len(broken)} broken", skipped=len(broken))


def _read(table: Table, column: str, rows: list[int], dataset: str) -> Iterator[Raw]:
    """The undecoded images; what goes wrong is said in one line, except for what the reader does with it."""
    with dataset_errors(dataset):
        yield from table.raw(column, rows)
