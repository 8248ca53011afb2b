"""Columns of labels that cannot be read: the error says what they hold, and what labels are."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow.parquet import write_table

from phard_hub.errors import ImagesError
from phard_hub.images import LabelledImages, load_images


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    return data.getvalue()


def load(dataset: Path, labels: tuple[str, ...] = ("cat", "dog")) -> LabelledImages:
    return load_images(str(dataset), labels=labels, image_size=(8, 8))


LABELLED_BY: dict[str, tuple[Any, str, str]] = {
    "fractions": (1.0, "'label' holds fractions", "which pandas makes fractions of"),
    "a list": ([1], "'label' holds lists", "no list and no one-hot row"),
    "one-hot": ([0.0, 1.0], "'label' holds lists", "no list and no one-hot row"),
    "bytes": (b"cat", "'label' holds bytes", "a word or a whole number"),
    "a day": (datetime(2020, 1, 1, tzinfo=UTC), "'label' holds dates", "a word or a whole number"),
    "nothing": (None, "'label' holds nothing", "a word or a whole number"),
    "parts": ({"name": "cat"}, "'label' holds struct<name: string>", "a word or a whole number"),
}


@pytest.mark.parametrize(("value", "held", "advice"), LABELLED_BY.values(), ids=LABELLED_BY)
def test_columns_that_hold_no_labels_say_what_they_hold(tmp_path: Path, value: Any, held: str, advice: str) -> None:
    rows = {"image": pa.array([png()] * 4), "label": pa.array([value] * 4)}
    write_table(pa.table(rows), tmp_path / "x.parquet")
    with pytest.raises(ImagesError) as caught:
        load(tmp_path / "x.parquet")
    assert held in caught.value.problem
    assert "image" not in caught.value.problem
    assert advice in caught.value.advice


def test_images_without_any_labels(tmp_path: Path) -> None:
    write_table(pa.table({"image": pa.array([png()] * 4)}), tmp_path / "x.parquet")
    with pytest.raises(ImagesError, match="has no label column: there is none beside the images"):
        load(tmp_path / "x.parquet")


def test_rows_that_are_not_there(tmp_path: Path) -> None:
    write_table(pa.table({"image": pa.nulls(0), "label": pa.nulls(0)}), tmp_path / "x.parquet")
    with pytest.raises(ImagesError, match="rows are not empty"):
        load(tmp_path / "x.parquet")


def test_true_and_false_are_classes(tmp_path: Path) -> None:
    rows = {"image": pa.array([png()] * 4), "label": pa.array([True, False] * 2)}
    write_table(pa.table(rows), tmp_path / "x.parquet")
    assert load(tmp_path / "x.parquet", ("0", "1")).labels.tolist() == [1, 0] * 2
