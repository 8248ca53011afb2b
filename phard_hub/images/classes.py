"""Which of the model's classes each label of a data set means."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from phard_hub.errors import ImagesError
from phard_hub.report.wording import printable

LONGEST_NAME = 1000
"""Characters that the name of a class may have."""
_NUMBER = re.compile(r"(?:label_)?(\d{1,9})", re.IGNORECASE | re.ASCII)
_GAP = re.compile(r"[\s_-]+")


def class_indices(values: list[Any], names: Sequence[str] | None, labels: Sequence[str], column: str) -> Tensor:
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
    kinds = {type(value) for value in values}
    if kinds == {str}:
        names = sorted(set(values))
        number = {name: k for k, name in enumerate(names)}
        values = [number[name] for name in values]
    elif not kinds <= {int, bool}:
        raise ImagesError(f"{column!r} holds no class names or numbers.", advice="Name another label column.")
    _check_names(names or (), column)
    used = sorted(set(values))
    count = len(names) if names else len(labels)
    if used and (used[0] < 0 or used[-1] >= count):
        wrong = used[0] if used[0] < 0 else used[-1]
        advice = "Choose another split or column."
        raise ImagesError(f"{column!r} holds {wrong}, but classes go from 0 to {count - 1}.", advice=advice)
    own = torch.tensor(values, dtype=torch.int64)
    return _to_model(names, used, labels)[own] if used else own


def _check_names(names: Iterable[str], column: str) -> None:
    """Long names are no names of classes, and comparing them would take for ever."""
    longest = max(map(len, names), default=0)
    if longest > LONGEST_NAME:
        problem = f"{column!r} holds a class name of {longest} characters; at most {LONGEST_NAME} are read."
        raise ImagesError(problem, advice="Name another label column.")


def _to_model(names: Sequence[str] | None, used: list[int], labels: Sequence[str]) -> Tensor:
    """The model's index of each of the data set's classes; -1 for classes that no row uses."""
    own = keys(labels)
    number = {key: k for k, key in enumerate(own)}
    if names is None or (len(number) < len(labels) and keys(names) == own):
        return torch.arange(len(labels))
    mapped = [number.get(key, -1) for key in keys(names)]
    unknown = [names[k] for k in used if mapped[k] < 0]
    if unknown and len(names) == len(labels):  # one side may have numbers only, and then these decide
        numbers = [int(match[1]) for name in names if (match := _NUMBER.fullmatch(name.strip()))]
        if sorted(numbers) == list(range(len(labels))):
            return torch.tensor(numbers)
        if all(_NUMBER.fullmatch(label.strip()) for label in labels):
            return torch.arange(len(labels))
    if len(number) < len(labels):
        counts = Counter(own)
        twice = [label for label, key in zip(labels, own, strict=True) if counts[key] > 1]
        problem = f"Names that the model has twice ({shown(twice)}) do not say which class is meant."
        raise ImagesError(problem, advice="Use a data set with the same list of classes in the same order.")
    if unknown:
        theirs = set(keys(names))
        missing = [label for label, key in zip(labels, own, strict=True) if key not in theirs]
        raise _mismatch(unknown, missing, len(used))
    return torch.tensor(mapped)


def _mismatch(unknown: list[str], missing: list[str], used: int) -> ImagesError:
    problem = f"{len(unknown)} of the data set's {used} classes are not the model's: {shown(unknown)}."
    if missing:
        problem += f" The model's that the data set does not have: {shown(missing)}."
    alike = difflib.get_close_matches(keys(unknown)[0], keys(missing), n=1)
    guess = f" (to {printable(missing[keys(missing).index(alike[0])])!r}?)" if alike else ""
    return ImagesError(
        problem,
        advice=f"Rename the classes to match, first {printable(unknown[0])!r}{guess}, or choose another data set.",
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


def keys(names: Iterable[str]) -> list[str]:
    """What two names have to share to be the same: letters and digits, whatever their case and the gaps between."""
    return [_GAP.sub(" ", unicodedata.normalize("NFC", name.strip()).casefold()) for name in names]


def shown(names: Sequence[str]) -> str:
    """The first few names, and how many there are more."""
    return ", ".join(map(printable, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
