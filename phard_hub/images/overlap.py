"""Images that are meant to be new to a model, and are among its training images all the same."""

from __future__ import annotations

import hashlib

import torch

from phard_hub.errors import ImagesError
from phard_hub.images.labelled import LabelledImages

_TOGETHER = 256
MOST = 0.01
"""The share of the test images that may be among the training images."""


def overlap(train: LabelledImages, test: LabelledImages) -> str:
    """Look for test images with the very pixels of a training image; say how many, or nothing if there are none.

    Raises:
        ImagesError: there are so many that nothing measured would be about new images.
    """
    known = set(_hashes(train))
    count = sum(one in known for one in _hashes(test))
    if not count:
        return ""
    said = f"{count} of {len(test)} test images ({100 * count / len(test):.2f} %) are among the training images, too"
    if count > MOST * len(test):
        advice = "Give other --test-images, or remove images that are there twice."
        raise ImagesError(f"{said}; at most {100 * MOST:.0f} % may be.", advice=advice)
    return f"{said}."


def _hashes(images: LabelledImages) -> list[bytes]:
    return [
        hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest()
        for part in torch.arange(len(images)).split(_TOGETHER)
        for pixels in images.read(part)
    ]
