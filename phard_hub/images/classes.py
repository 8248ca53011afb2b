"""Which of the model's classes each label of a data set means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from phard_hub.errors import ImagesError
from phard_hub.images.matching import Said, match, shown

LONGEST_NAME = 1000
"""Characters that the name of a class may have."""


class Classes(NamedTuple):
    """The model's class index of each row, int64 ``(N,)``, and how names were matched that are not equal."""

    indices: Tensor
    matched: str


def class_indices(
    values: list[Any],
    names: Sequence[str] | None,
    labels: Sequence[str],
    column: str,
    said: Said | None = None,
    *,
    partly: bool = False,
) -> Classes:
    """Find the model's class of each row.

    Args:
        values: of the label column: class names, or numbers.
        names: what the numbers mean, if the data set says so.
        labels: the model's class names.
        column: for errors.
        said: what the user says of the names; see `matching.Said`.
        partly: whether rows may be of classes that the model does not have; their index is -1.

    Raises:
        ImagesError: a row has no label or one out of range, or classes are not the model's.
    """
    if None in values:
        raise ImagesError(f"Row {values.index(None)} has no label in {column!r}.", advice="Remove rows without label.")
    kinds = {type(value) for value in values}
    if not (kinds <= {int, bool} or kinds == {str}):
        raise ImagesError(f"{column!r} holds no class names or numbers.", advice="Name another label column.")
    used = sorted(set(values))
    if kinds != {str}:
        _check_range(used, names, column)
    meant = used if kinds == {str} else [names[k] if names else str(int(k)) for k in used]
    _check_names(meant, column)
    found = match(meant, labels, said, partly=partly)
    index = dict(zip(used, found.indices, strict=True))
    return Classes(torch.tensor([index[value] for value in values], dtype=torch.int64), found.how)


def _check_range(used: list[int], names: Sequence[str] | None, column: str) -> None:
    """Numbers of classes begin at 0 and end where the names do."""
    wrong = [k for k in used if k < 0 or (names and k >= len(names))]
    if wrong:
        worst = wrong[0] if wrong[0] < 0 else wrong[-1]
        problem = f"{column!r} holds {worst}, but classes go from 0{f' to {len(names) - 1}' if names else ' on'}."
        raise ImagesError(problem, advice="Choose another split or column.")


def _check_names(names: Iterable[str], column: str) -> None:
    """Long names are no names of classes, and comparing them would take for ever."""
    longest = max(map(len, names), default=0)
    if longest > LONGEST_NAME:
        problem = f"{column!r} holds a class name of {longest} characters; at most {LONGEST_NAME} are read."
        raise ImagesError(problem, advice="Name another label column.")


def require_classes(targets: Tensor, labels: Sequence[str], dataset: str, chosen: Sequence[int] = ()) -> None:
    """Every class of the model has images, or every class that was chosen.

    Raises:
        ImagesError: names the classes that have none.
    """
    if len(labels) < 2:
        raise ImagesError(f"There is only {len(labels)} class.", advice="At least 2 are needed to tell apart.")
    counts = torch.bincount(targets, minlength=len(labels))
    if int((counts > 0).sum()) < 2:
        raise ImagesError(f"{dataset} shows fewer than 2 classes.", advice="Give images of each class of the model.")
    asked = chosen or range(len(labels))
    if empty := [labels[k] for k in asked if not counts[k]]:
        raise ImagesError(
            f"{dataset} has no images of {len(empty)} of {len(asked)} classes: {shown(empty)}.",
            advice="Add images of each of them, choose another split, or measure between the classes that it has: "
            "--only-present-classes.",
        )
