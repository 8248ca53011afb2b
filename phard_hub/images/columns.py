"""Which columns of a data set hold images and labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from phard_hub.errors import ImagesError
from phard_hub.images.matching import keys, shown
from phard_hub.report.wording import printable

_LABEL_COLUMNS = ("label", "labels", "class", "target")
_PLAIN = re.compile(r"u?int\d+|(large_)?string")
_HELD = (
    (r"null", "nothing"),
    (r"(half)?float\d*|double|decimal.*", "fractions"),
    (r"(large_)?binary", "bytes"),
    (r"(large_)?(list|List|Sequence|LargeList)\W.*|fixed_size_list.*|Array\dD.*", "lists"),
    (r"(timestamp|date|time)\W?.*", "dates"),
    (r"(large_)?string", "words"),
    (r"u?int\d+", "whole numbers"),
    (r"bool", "true and false"),
)
"""What types of columns hold, in words."""
_LARGEST_NOTE = 16 * 2**20
"""Bytes that the note of `datasets` in a parquet file may have; that of 21,000 classes has one million."""

_NO_IMAGES = "Paths, base64 and lists of numbers are not read: store image files as bytes, or give a CSV list of paths."


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        kind: "image" if it says so, "bytes" if it may hold images; "classes" are numbers of classes, "plain"
            are words or numbers, "flags" are true and false.
        names: the classes that the numbers mean, if it says so.
        held: what it holds, in words for an error.
    """

    kind: Literal["image", "bytes", "classes", "plain", "flags", "other"]
    names: tuple[str, ...] | None = None
    held: str = ""


Columns = Mapping[str, Column]


def of_features(features: Mapping[str, Any]) -> dict[str, Column]:
    """The columns that `datasets.Features` describe."""
    return {name: _of_feature(feature) for name, feature in features.items()}


def _of_feature(feature: Any) -> Column:  # noqa: ANN401 - untyped
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    if isinstance(feature, ImageFeature):
        return Column("image")
    if isinstance(feature, ClassLabel):
        return Column("classes", tuple(feature.names) if feature.names else None)
    if isinstance(feature, dict):
        return Column("bytes" if "bytes" in feature else "other", held="parts")
    dtype = str(getattr(feature, "dtype", ""))
    return _of_type(dtype if dtype not in ("", "list") else f"{type(feature).__name__}()", "binary" in dtype)


def _of_type(kind: str, may_be_image: bool = False) -> Column:
    """The column of a type by its name, as `datasets` and Arrow call it."""
    held = next((words for pattern, words in _HELD if re.fullmatch(pattern, kind)), printable(kind))
    plain = _PLAIN.fullmatch(kind)
    return Column("plain" if plain else "bytes" if may_be_image else "flags" if kind == "bool" else "other", held=held)


def of_schema(schema: Any) -> dict[str, Column]:  # noqa: ANN401 - untyped
    """The columns of a `pyarrow.Schema`; what `datasets` noted in it counts where it fits what is there."""
    noted = _noted(schema.metadata or {})
    return {field.name: _of_field(field.type, noted.get(field.name)) for field in schema}


def _of_field(kind: Any, note: Any) -> Column:  # noqa: ANN401 - untyped
    from pyarrow import types

    note = note if isinstance(note, dict) else {}
    value = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_binary(value) or types.is_large_binary(value) or _may_be_image(kind):
        return Column("image" if note.get("_type") == "Image" else "bytes", held="bytes")
    if note.get("_type") == "ClassLabel" and types.is_integer(kind):
        names = note.get("names")
        named = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        return Column("classes", tuple(names) if named else None)
    return _of_type(str(value))


def _may_be_image(kind: Any) -> bool:  # noqa: ANN401 - untyped
    """Whether a column looks like an image of `datasets`, though perhaps without its bytes."""
    from pyarrow import types

    return bool(types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind})


def _noted(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The features that `datasets` writes into a parquet file; none if they are not what it writes."""
    note = metadata.get(b"huggingface", b"")
    try:
        features = json.loads(note)["info"]["features"] if len(note) <= _LARGEST_NOTE else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def find_columns(columns: Columns, image: str | None, label: str | None, labels: Sequence[str]) -> tuple[str, str]:
    """The names of the image and the label column: as named, or found by their types.

    Where a data set has several kinds of classes, as CIFAR-100 has, those that are the model's are meant.

    Raises:
        ImagesError: a named column is not there, or none or several could be meant.
    """
    for name in (image, label):
        if name is not None and name not in columns:
            problem = f"No column {printable(name)!r} among {shown(list(columns))}."
            raise ImagesError(problem, advice="Name one of these.")
    if image is not None and columns[image].kind not in ("image", "bytes"):
        problem = f"Column {printable(image)!r} holds text or numbers, not the bytes of images."
        raise ImagesError(problem, advice=_NO_IMAGES)
    raw = _of_kind(columns, "bytes")
    images = _of_kind(columns, "image") or [name for name in raw if name not in _LABEL_COLUMNS] or raw
    classes, plain = _of_kind(columns, "classes"), _of_kind(columns, "plain") or _of_kind(columns, "flags")
    own = set(keys(labels))
    fitting = [name for name in classes if own <= set(keys(columns[name].names or ()))]
    named = [name for name in _LABEL_COLUMNS if name in classes] or [name for name in _LABEL_COLUMNS if name in plain]
    found = next((one for one in (classes, fitting, named[:1]) if len(one) == 1), classes or plain)
    image = image or _only(images, "image", columns)
    others = {name: column for name, column in columns.items() if name != image}
    return image, label or _only(found, "label", others)


def _of_kind(columns: Columns, kind: str) -> list[str]:
    return [name for name, column in columns.items() if column.kind == kind]


def _only(found: list[str], what: Literal["image", "label"], columns: Columns) -> str:
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"The data set has several {what} columns among {shown(found)}."
        raise ImagesError(problem, advice=f"Name one with --{what}-column.")
    others = [f"{printable(name)!r} holds {column.held or 'something else'}" for name, column in columns.items()]
    problem = f"The data set has no {what} column: {shown(others, 100) or 'there is none beside the images'}."
    raise ImagesError(problem, advice=_no_images(columns) if what == "image" else _no_labels(columns))


def _no_images(columns: Columns) -> str:
    empty = any(column.held == "nothing" for column in columns.values())
    return "Give a data set whose rows are not empty." if empty else _NO_IMAGES


def _no_labels(columns: Columns) -> str:
    """What to do where no column holds labels, by what comes nearest to them."""
    if any(column.held == "fractions" for column in columns.values()):
        return "Labels are words or whole numbers, which pandas makes fractions of where a row has none."
    if any(column.held == "lists" for column in columns.values()):
        return "Each row needs one label: a word or a whole number, no list and no one-hot row."
    return "Give each row a label: a word or a whole number, in a column such as label."
