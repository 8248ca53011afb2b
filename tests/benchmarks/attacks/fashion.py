"""Fashion-MNIST as parquet, from the files in which it is published."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_PARTS = {"train": "train", "test": "t10k"}


def write(source: Path, out: Path) -> list[Path]:
    """Write ``fashion_mnist_train.parquet`` and ``fashion_mnist_test.parquet``.

    Args:
        source: folder with the four ``idx`` files, such as Debian's ``/usr/share/datasets/fashion-mnist``.
        out: folder to write to.
    """
    out.mkdir(parents=True, exist_ok=True)
    features = Features({"image": Image(), "label": ClassLabel(names=list(NAMES))})
    written = []
    for split, part in _PARTS.items():
        pixels = _values(source / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _values(source / f"{part}-labels-idx1-ubyte.gz", 8).tolist()
        images = [Pillow.fromarray(each) for each in pixels]
        written.append(out / f"fashion_mnist_{split}.parquet")
        Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(written[-1])
    return written


def _values(path: Path, header: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)
