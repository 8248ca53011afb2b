"""Which columns hold images and labels, and which of the model's classes each label means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phard_hub.errors import ImagesError

_LABEL_COLUMNS = ("label", "labels", "class", "target")
_NUMBER = re.compile(r"(?:label_)?(\d+)", re.IGNORECASE | re.ASCII)
_PLAIN = re.compile(r"u?int\d+|(large_)?string")
_GAP = re.compile(r"[\s_-]+")


def find_columns(features: Any, image: str | None, label: str | None, labels: Sequence[str]) -> tuple[str, str]:  # noqa: ANN401
    """The names of the image and the label column: as named, or found by their types.

    Where a data set has several kinds of classes, as CIFAR-100 has, those that are the model's are meant.

    Raises:
        ImagesError: a named column is not there, or none or several could be meant.
    """
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    for name in (image, label):
        if name is not None and name not in features:
            raise ImagesError(f"No column {name!r} among {', '.join(features)}.", advice="Name one of these.")
    raw = [name for name, kind in features.items() if isinstance(kind, dict) and "bytes" in kind]
    images = [name for name, kind in features.items() if isinstance(kind, ImageFeature)] or raw
    classes = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    fitting = [name for name in classes if set(_keys(labels)) <= set(_keys(features[name].names))]
    plain = [name for name, kind in features.items() if _PLAIN.fullmatch(str(getattr(kind, "dtype", "")))]
    named = [name for name in _LABEL_COLUMNS if name in classes] or [name for name in _LABEL_COLUMNS if name in plain]
    found = next((one for one in (classes, fitting, named[:1]) if len(one) == 1), classes or plain)
    return image or _only(images, "image", features), label or _only(found, "label", features)


def _only(found: list[str], what: str, features: Iterable[str]) -> str:
    if len(found) == 1:
        return found[0]
    problem = f"{'several' if found else 'no'} {what} columns among {', '.join(found or features)}"
    advice = f"Name one with --{what}-column."
    if what == "label" and not found:
        advice += " A folder needs a sub-folder for each class, and at least two of them."
    raise ImagesError(f"The data set has {problem}.", advice=advice)


def class_indices(values: list[Any], names: list[str] | None, labels: Sequence[str], column: str) -> Tensor:
    """The model's class index of each row, int64 ``(N,)``.

    Args:
        values: of the label column: class names, or numbers.
        names: what the numbers mean, if the data set says so.
        labels: the model's class names.
        column: for errors.

    Raises:
        ImagesError: a row has no label or one out of range, or classes are not the model's.
    """
    if None in values:
        raise ImagesError(f"Row {values.index(None)} has no label in {column!r}.", advice="Remove rows without label.")
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


def _to_model(names: list[str] | None, used: list[int], labels: Sequence[str]) -> Tensor:
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
    if len(number) < len(labels):
        twice = [label for label, key in zip(labels, _keys(labels), strict=True) if _keys(labels).count(key) > 1]
        problem = f"Names that the model has twice ({shown(twice)}) do not say which class is meant."
        raise ImagesError(problem, advice="Use a data set with the same list of classes in the same order.")
    if unknown:
        raise _mismatch(unknown, [label for label in labels if not {*_keys([label])} & {*_keys(names)}], len(used))
    return torch.tensor(mapped)


def _mismatch(unknown: list[str], missing: list[str], used: int) -> ImagesError:
    problem = f"{len(unknown)} of the data set's {used} classes are not the model's: {shown(unknown)}."
    if missing:
        problem += f" The model's that the data set does not have: {shown(missing)}."
    alike = difflib.get_close_matches(_keys(unknown)[0], _keys(missing), n=1)
    guess = f" (to {missing[_keys(missing).index(alike[0])]!r}?)" if alike else ""
    return ImagesError(
        problem, advice=f"Rename the classes to match, first {unknown[0]!r}{guess}, or choose another data set."
    )


def require_classes(targets: Tensor, labels: Sequence[str], dataset: str) -> None:
    """Every class of the model has images.

    Raises:
        ImagesError: names the classes that have none.
    """
    if len(labels) < 2:
        raise ImagesError(f"There is only {len(labels)} class.", advice="At least 2 are needed to tell apart.")
    counts = torch.bincount(targets, minlength=len(labels))
    if int((counts > 0).sum()) < 2:
        raise ImagesError(f"{dataset} shows fewer than 2 classes.", advice="Give images of each class of the model.")
    empty = [labels[k] for k in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise ImagesError(
            f"{dataset} has no images of {len(empty)} of {len(labels)} classes: {shown(empty)}.",
            advice="Add images of each class of the model, or choose another split.",
        )


def _keys(names: Iterable[str]) -> list[str]:
    """What two names have to share to be the same: letters and digits, whatever their case and the gaps between."""
    return [_GAP.sub(" ", name.strip().casefold()) for name in names]


def shown(names: Sequence[str]) -> str:
    """The first few names, and how many there are more."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
