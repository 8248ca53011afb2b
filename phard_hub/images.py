"""Labelled images: from the Hub, a folder, parquet files, or the small set inside scikit-learn.

All images of a set are kept as one uint8 tensor on the classifier's canvas, with labels that are the
classifier's own indices: whatever order the data set numbers its classes in, they are matched by name.
"""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from phard_hub.errors import HubUnavailableError, ImagesError, OutputError, first_line

Progress = Callable[[int, int], None]
"""Called now and then with (images done, images in all)."""

_BATCH = 256
_MODES = {1: "L", 3: "RGB"}
_LABEL_COLUMNS = ("label", "labels", "class", "target")
_NUMBER = re.compile(r"(?:label_)?(\d+)", re.IGNORECASE | re.ASCII)
_PLAIN = re.compile(r"u?int\d+|(large_)?string")
_REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_FILTERS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of one size with the index of the class that each shows.

    Attributes:
        pixels: uint8 ``(N, C, H, W)``.
        labels: int64 ``(N,)``, each in 0..K-1.
        names: The K class names.
        source: Where they came from, for the report.
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """K, the number of class names."""
        return len(self.names)

    def take(self, index: Tensor | Sequence[int]) -> Self:
        """The images at these positions, in this order."""
        rows = torch.as_tensor(index, dtype=torch.int64)
        return type(self)(self.pixels[rows], self.labels[rows], self.names, self.source)

    def of_class(self, k: int) -> Self:
        """All images of class ``k``."""
        return self.take((self.labels == k).nonzero().flatten())

    def batch(self, index: Tensor | Sequence[int], device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """Float pixels in [0, 1] and labels of the images at these positions, on ``device``."""
        index = torch.as_tensor(index, dtype=torch.int64)
        return self.pixels[index].to(device).float() / 255, self.labels[index].to(device)

    def split(self, part: float, seed: int = 0) -> tuple[Self, Self]:
        """Divide into (rest, part), each class in the same shares; the same seed gives the same parts.

        Args:
            part: How many images the part gets: a count, or a share if it is a float below 1.
            seed: Chooses which.

        Raises:
            ImagesError: the part or the rest would be empty.
        """
        count = round(part * len(self)) if isinstance(part, float) and part < 1 else int(part)
        if not 0 < count < len(self):
            raise ImagesError(
                f"Cannot split {count} off {len(self)} images.", advice="Give more images or split fewer off."
            )
        order = torch.argsort(_ranks(self.labels, seed, relative=True), stable=True)
        return self.take(order[count:].sort().values), self.take(order[:count].sort().values)

    def sample(self, per_class: int, seed: int = 0) -> Self:
        """``per_class`` images of each class chosen at random, or all of a class that has fewer."""
        return self.take((_ranks(self.labels, seed) < per_class).nonzero().flatten())


def demo_images() -> tuple[LabelledImages, LabelledImages]:
    """Handwritten digits that need no download: (1297 to train, 500 to test), 32x32, three channels.

    They are scikit-learn's ``load_digits`` (8x8, grey 0..16), enlarged bilinearly.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    large = [Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR) for image in grey]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in large]))[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(digits.target).long()
    names = tuple(str(name) for name in digits.target_names)
    return LabelledImages(pixels, labels, names, "scikit-learn digits").split(500, seed=0)


def load_images(
    dataset: str,
    *,
    labels: Sequence[str],
    image_size: tuple[int, int],
    channels: int = 3,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    max_images: int | None = None,
    resample: str = "bilinear",
    stretch: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> LabelledImages:
    """Load images for a classifier, with its own labels and at its own size.

    Args:
        dataset: A folder with one sub-folder per class, a folder or pattern of parquet files, one
            parquet file, or the id of a data set on the Hub.
        labels: The classifier's class names, in the order of its logits.
        image_size: (height, width) of the canvas that all images are put on.
        channels: 3 for colour, 1 for grey.
        split: "train" if it exists, else the only one.
        image_column: Found by its type if None; so is ``label_column``.
        label_column: Class names, or numbers from 0.
        max_images: Take a balanced choice of at most so many; the others are not decoded.
        resample: The filter: nearest-exact, bilinear, bicubic or lanczos.
        stretch: Whether to change the aspect of images, instead of cutting off the longer edge.
        seed: Chooses which images ``max_images`` leaves.
        progress: Told how far the decoding is.

    Raises:
        ImagesError: no such data set, columns or labels do not fit, a class is empty, an image is broken.
        HubUnavailableError: the Hub did not answer.
        OutputError: the cache of `datasets` cannot be written.
    """
    if channels not in _MODES or resample not in _FILTERS:
        raise ImagesError(
            f"Images of {channels} channels with filter {resample!r} cannot be loaded.",
            advice=f"Use 1 or 3 channels and one of {', '.join(_FILTERS)}.",
        )
    table = _open(dataset, split)
    image_column, label_column = _columns(table.features, image_column, label_column)
    targets = _class_indices(table, label_column, tuple(labels))
    index = _choose(targets, len(labels), max_images, seed)
    _require_classes(targets[index], labels, dataset)
    pixels = np.empty((len(index), channels, *image_size), dtype=np.uint8)
    for done, (row, raw) in enumerate(_raw_images(table, image_column, index.tolist())):
        image = _decode(raw, f"row {row} of {dataset}", _MODES[channels])
        placed = np.asarray(_place(image, image_size, _FILTERS[resample], stretch=stretch))
        pixels[done] = placed.reshape(*image_size, channels).transpose(2, 0, 1)
        if progress and (done % _BATCH == _BATCH - 1 or done == len(index) - 1):
            progress(done + 1, len(index))
    return LabelledImages(torch.from_numpy(pixels), targets[index], tuple(labels), f"{dataset} ({table.split})")


def _ranks(labels: Tensor, seed: int, *, relative: bool = False) -> Tensor:
    """The place of each image in a shuffled queue of its class: 0, 1, ..., or as a share of the class.

    Taking the lowest ranks is a balanced choice, taking the lowest shares a stratified one.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    ranks = torch.empty(len(labels), dtype=torch.float64)
    for k in sorted(set(labels.tolist())):
        queue = order[labels[order] == k]
        places = torch.arange(len(queue), dtype=torch.float64)
        ranks[queue] = (places + 0.5) / len(queue) if relative else places
    return ranks


def _choose(targets: Tensor, num_classes: int, max_images: int | None, seed: int) -> Tensor:
    """The rows to load: all, or a balanced choice."""
    if max_images is None or max_images >= len(targets):
        return torch.arange(len(targets))
    if max_images < num_classes:
        advice = f"Allow at least {num_classes} images."
        raise ImagesError(f"{max_images} images cannot show {num_classes} classes.", advice=advice)
    return torch.argsort(_ranks(targets, seed), stable=True)[:max_images].sort().values


def _require_classes(targets: Tensor, labels: Sequence[str], dataset: str) -> None:
    if len(labels) < 2:
        raise ImagesError(f"There is only {len(labels)} class.", advice="At least 2 are needed to tell apart.")
    counts = torch.bincount(targets, minlength=len(labels))
    if int((counts > 0).sum()) < 2:
        raise ImagesError(f"{dataset} shows fewer than 2 classes.", advice="Give images of each class of the model.")
    empty = [labels[k] for k in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise ImagesError(
            f"{dataset} has no images of {len(empty)} of {len(labels)} classes: {_shown(empty)}.",
            advice="Add images of each class of the model, or choose another split.",
        )


def _open(dataset: str, split: str | None) -> Any:  # noqa: ANN401 - datasets.Dataset, untyped
    """The data set as a table, with nothing decoded."""
    from datasets import DatasetDict, load_dataset

    path = Path(dataset).expanduser()
    files = path.rglob("*.parquet") if path.is_dir() else glob(str(path), recursive=True)  # noqa: PTH207 - may be absolute
    parquet = sorted(str(file) for file in files)
    if not path.is_dir() and any(not file.endswith(".parquet") for file in parquet):
        raise ImagesError(f"{dataset} is no parquet file.", advice="Give a folder, parquet files or a Hub id.")
    if not parquet and not path.is_dir() and (path.suffix == ".parquet" or not _REPO_ID.fullmatch(dataset)):
        advice = "Give an existing folder, parquet files, or a Hub id such as ylecun/mnist."
        raise ImagesError(f"{dataset!r} is neither an existing file or folder nor a Hub id.", advice=advice)
    with _dataset_errors(dataset):
        if parquet:
            found = load_dataset("parquet", data_files=parquet)
        elif path.is_dir():
            found = load_dataset("imagefolder", data_dir=str(path))
        else:
            found = load_dataset(dataset)
    assert isinstance(found, DatasetDict)
    return found[_split(list(found), split, dataset)]


def _split(names: list[str], wanted: str | None, dataset: str) -> str:
    name = wanted or ("train" if "train" in names else names[0] if len(names) == 1 else None)
    if name not in names:
        problem = f"has no split {wanted!r}" if wanted else "has several splits"
        raise ImagesError(f"{dataset} {problem}; it has {', '.join(names)}.", advice="Name one of them with --split.")
    return name


@contextmanager
def _dataset_errors(dataset: str) -> Iterator[None]:
    """Say in one line why a data set cannot be opened."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        yield
    except DatasetNotFoundError as error:
        advice = "Check the spelling; if it is gated or private, log in with `hf auth login`."
        raise ImagesError(f"There is no file, folder or Hub data set {dataset}.", advice=advice) from error
    except (ConnectionError, HfHubHTTPError, httpx.TransportError) as error:
        problem = f"The Hub did not give {dataset}: {first_line(error)}."
        raise HubUnavailableError(problem, advice="Try again later, or give a local folder.") from error
    except (DatasetsError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            advice = "Make space or set HF_HOME to a folder that can be written."
            raise OutputError(f"Cannot read {dataset} or cache it: {cause.strerror}.", advice=advice) from error
        advice = "Give images in one folder a class, parquet files, or a Hub data set with one configuration."
        raise ImagesError(f"{dataset} cannot be read as images: {first_line(error)}.", advice=advice) from error


def _columns(features: Any, image: str | None, label: str | None) -> tuple[str, str]:  # noqa: ANN401
    """The names of the image and the label column: as named, or found by their types."""
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    for name in (image, label):
        if name is not None and name not in features:
            raise ImagesError(f"No column {name!r} among {', '.join(features)}.", advice="Name one of these.")
    raw = [name for name, kind in features.items() if isinstance(kind, dict) and "bytes" in kind]
    images = [name for name, kind in features.items() if isinstance(kind, ImageFeature)] or raw
    classes = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    plain = [name for name, kind in features.items() if _PLAIN.fullmatch(str(getattr(kind, "dtype", "")))]
    named = [name for name in _LABEL_COLUMNS if name in classes] or [name for name in _LABEL_COLUMNS if name in plain]
    labels = classes if len(classes) == 1 else named[:1] or classes or plain
    return image or _only(images, "image", features), label or _only(labels, "label", features)


def _only(found: list[str], what: str, features: Iterable[str]) -> str:
    if len(found) == 1:
        return found[0]
    problem = f"{'several' if found else 'no'} {what} columns among {', '.join(found or features)}"
    advice = f"Name one with --{what}-column."
    if what == "label" and not found:
        advice += " A folder needs a sub-folder for each class, and at least two of them."
    raise ImagesError(f"The data set has {problem}.", advice=advice)


def _class_indices(table: Any, column: str, labels: tuple[str, ...]) -> Tensor:  # noqa: ANN401
    """The model's class index of each row, int64 ``(N,)``."""
    values = table.data.column(column).to_pylist()
    if None in values:
        raise ImagesError(f"Row {values.index(None)} has no label in {column!r}.", advice="Remove rows without label.")
    names = getattr(table.features[column], "names", None)
    if values and isinstance(values[0], str):
        names = sorted(set(values))
        values = np.unique(values, return_inverse=True)[1].tolist()
    if values and not isinstance(values[0], int):
        raise ImagesError(f"{column!r} holds no class names or numbers.", advice="Name another label column.")
    own = torch.tensor(values, dtype=torch.int64)
    used = sorted(set(values))
    count = len(names) if names else len(labels)
    if used and (used[0] < 0 or used[-1] >= count):
        wrong = used[0] if used[0] < 0 else used[-1]
        advice = "Choose another split or column."
        raise ImagesError(f"{column!r} holds {wrong}, but classes go from 0 to {count - 1}.", advice=advice)
    return _to_model(names, used, labels)[own] if used else own


def _to_model(names: list[str] | None, used: list[int], labels: tuple[str, ...]) -> Tensor:
    """The model's index of each of the data set's classes; -1 for classes that no row uses."""
    number = {key: k for k, key in enumerate(_keys(labels))}
    if names is None or (len(number) < len(labels) and _keys(names) == _keys(labels)):
        return torch.arange(len(labels))
    mapped = [number.get(key, -1) for key in _keys(names)]
    unknown = [names[k] for k in used if mapped[k] < 0]
    if unknown and len(names) == len(labels):  # one side may have numbers only, and then these decide
        numbers = [int(match[1]) for name in names if (match := _NUMBER.fullmatch(name.strip()))]
        if sorted(numbers) == list(range(len(labels))):
            return torch.tensor(numbers)
        if all(_NUMBER.fullmatch(label.strip()) for label in labels):
            return torch.arange(len(labels))
    if unknown or len(number) < len(labels):
        raise ImagesError(
            f"The data set's classes ({_shown(names)}) are not the model's ({_shown(labels)}).",
            advice=f"Rename the classes to match, first {(unknown or names)[0]!r}, or choose another data set.",
        )
    return torch.tensor(mapped)


def _keys(names: Iterable[str]) -> list[str]:
    return [name.strip().casefold() for name in names]


def _shown(names: Sequence[str]) -> str:
    """The first few names, and how many there are more."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _raw_images(table: Any, column: str, rows: list[int]) -> Iterator[tuple[int, Any]]:  # noqa: ANN401
    """(row, undecoded image) of each row."""
    from datasets import Image as ImageFeature

    if isinstance(table.features[column], ImageFeature):
        table = table.cast_column(column, ImageFeature(decode=False))
    table = table.select_columns([column])
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        yield from zip(batch, table[batch][column], strict=True)


def _decode(raw: Any, where: str, mode: str) -> Image.Image:  # noqa: ANN401
    """Decode one image as the transformers pipeline does: upright, in the right mode."""
    path, data = (raw.get("path"), raw.get("bytes")) if isinstance(raw, dict) else (None, raw)
    source: Any = io.BytesIO(data) if data else path
    if not source:
        raise ImagesError(f"There is no image in {where}.", advice="Remove this row.")
    where = f"{where} ({path})" if path else where
    try:
        with Image.open(source) as file:
            return _to_mode(ImageOps.exif_transpose(file), mode)
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, Image.DecompressionBombError) as error:
        raise ImagesError(
            f"Cannot decode {where}: {first_line(error)}.", advice="Repair or remove this image."
        ) from error


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert to ``mode``; 16-bit grey is scaled, where Pillow alone would turn most of it white."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        scale = 257 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 1
        image = Image.fromarray(np.clip(values // scale, 0, 255).astype(np.uint8))
    image.load()
    return image if image.mode == mode else image.convert(mode)


def _place(image: Image.Image, size: tuple[int, int], resample: Image.Resampling, *, stretch: bool) -> Image.Image:
    """Put an image on the canvas; one that already has its size is not touched."""
    height, width = size
    if image.size == (width, height):
        return image
    if stretch:
        return image.resize((width, height), resample)
    # Integers, as image processors compute it: the edge that fits tightly is exact, the other is cut off.
    if image.width * height <= image.height * width:
        new = (width, max(height, width * image.height // image.width))
    else:
        new = (max(width, height * image.width // image.height), height)
    left, top = (new[0] - width) // 2, (new[1] - height) // 2
    return image.resize(new, resample).crop((left, top, left + width, top + height))
