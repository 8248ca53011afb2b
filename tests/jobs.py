"""A cheap job for the command, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ("cat", "dog", "owl", "fox")


def write_images(folder: Path, labels: tuple[str, ...] = LABELS, per_class: int = 24) -> Path:
    """Noise in the colour of each class; each class in another mode of colours."""
    random = np.random.default_rng(0)
    for k, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            pixels = random.integers(0, 100, (32, 32, 3)) + 150 * np.eye(4)[k][:3]
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.convert(("RGB", "L", "RGBA", "P")[k % 4]).save(folder / label / f"{number}.png")
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refusing(folder: Path) -> Path:
    """A policy that refuses a model that knows nothing, whatever else cannot be evaluated."""
    path = folder / "refusing.toml"
    path.write_text("min_accuracy = 1.0\n")
    return path


def cheap(model: Path, images: Path, out: Path, *more: object) -> list[object]:
    """Harden a model for a moment, even one that knows nothing, as drawn at random."""
    options = ["--preset", "cheapest", "--even-at-chance"]
    return ["harden", model, "--images", images, "--out", out, *options, *more]
