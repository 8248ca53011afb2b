"""Labelled images: from the Hub, a folder, parquet files, or the small set inside scikit-learn.

All images of a set are kept as one uint8 tensor on the classifier's canvas, with labels that are the
classifier's own indices: whatever order the data set numbers its classes in, they are matched by name.
"""

from __future__ import annotations

from phard_hub.images.decoding import decode
from phard_hub.images.labelled import LabelledImages, demo_images
from phard_hub.images.loading import Progress, load_images

__all__ = ["LabelledImages", "Progress", "decode", "demo_images", "load_images"]
