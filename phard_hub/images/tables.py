"""What `load_images` reads from: a data set that is here, or a large one of which only parts are fetched.

A table gives all its labels first, and then the images of the rows that were chosen. A large data set is
not copied to get at a few of its images: of parquet files only the column of labels is read as a whole, and
then those row groups that hold chosen images; what else there is, is streamed until enough were seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

_BATCH = 256
_CONNECTIONS = 8

Opener = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens one parquet file, here or on the Hub."""


class Table(Protocol):
    """A data set with nothing decoded; types of `datasets` are untyped.

    Attributes:
        name: Data set, revision and split, for people.
        features: The `datasets.Features`.
        groups: int64 ``(N,)``: rows of one number can only be read together; None if each can be read alone.
    """

    name: str
    features: Any
    groups: Tensor | None

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all rows."""
        ...

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(row, undecoded image) of some rows, given in ascending order."""
        ...

    def told(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many."""
        ...


class ArrowTable:
    """A `datasets.Dataset`: any row can be read at once."""

    groups: Tensor | None = None

    def __init__(self, dataset: Any, name: str) -> None:  # noqa: ANN401
        """Keep a `datasets.Dataset`."""
        self.features, self.name = dataset.features, name
        self._dataset = dataset

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all rows."""
        values: list[Any] = self._dataset.data.column(column).to_pylist()
        return values

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(row, undecoded image) of some rows."""
        from datasets import Image as ImageFeature

        table = self._dataset
        if isinstance(self.features[column], ImageFeature):
            table = table.cast_column(column, ImageFeature(decode=False))
        table = table.select_columns([column])
        for start in range(0, len(rows), _BATCH):
            batch = list(rows[start : start + _BATCH])
            yield from zip(batch, table[batch][column], strict=True)

    def told(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many."""
        return f"{self.name}, {chosen} of {len(self._dataset)} images"


class ParquetFiles:
    """Parquet files that are too large to copy: labels are read of all rows, images by row groups."""

    groups: Tensor | None = None

    def __init__(self, files: Sequence[Opener], features: Any, name: str) -> None:  # noqa: ANN401
        """Keep openers of files; nothing is read yet."""
        self.features, self.name = features, name
        self._files = files
        self._starts: list[tuple[int, int, int]] = []  # (first row, file, row group) of each row group
        self._rows = self._read = 0

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all rows."""
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            found = list(pool.map(lambda file: self._column(file, column), self._files))
        values: list[Any] = []
        groups: list[int] = []
        for file, parts in enumerate(found):
            for group, part in enumerate(parts):
                self._starts.append((len(values), file, group))
                groups += [len(self._starts) - 1] * len(part)
                values += part
        self.groups, self._rows = torch.tensor(groups, dtype=torch.int64), len(values)
        return values

    @staticmethod
    def _column(file: Opener, column: str) -> list[list[Any]]:
        """The values of a column, by row group."""
        from pyarrow.parquet import ParquetFile

        with file() as source:
            parquet = ParquetFile(source)
            return [
                parquet.read_row_group(group, columns=[column]).column(0).to_pylist()
                for group in range(parquet.num_row_groups)
            ]

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(row, undecoded image) of some rows; only the row groups that they lie in are read."""
        from pyarrow.parquet import ParquetFile

        assert self.groups is not None
        of_row = self.groups[torch.as_tensor(rows, dtype=torch.int64)].tolist()
        placed = [(*self._starts[group], row) for group, row in zip(of_row, rows, strict=True)]
        for file, inside in groupby(placed, key=lambda place: place[1]):
            with self._files[file]() as source:
                parquet = ParquetFile(source)
                for (start, _, group), chosen in groupby(inside, key=lambda place: place[:3]):
                    images = parquet.read_row_group(group, columns=[column]).column(column)
                    self._read += len(images)
                    yield from ((row, images[row - start].as_py()) for *_, row in chosen)

    def told(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many, and read for it."""
        return f"{self.name}, {chosen} of {self._rows} images, {self._read} read"


class Stream:
    """A large data set in another format: read from its start until there are enough images of each class."""

    groups: Tensor | None = None

    def __init__(self, dataset: Any, name: str, *, per_class: int, classes: int) -> None:  # noqa: ANN401
        """Keep a `datasets.IterableDataset` and what is enough."""
        self.features, self.name = dataset.features, name
        self._dataset = dataset.decode(False)
        self._per_class, self._classes = per_class, classes
        self._rows: list[dict[str, Any]] = []
        self._read = 0

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all rows that were kept."""
        counts: Counter[Any] = Counter()
        full = 0
        for row in self._dataset:
            self._read += 1
            if counts[row[column]] < self._per_class:
                counts[row[column]] += 1
                full += counts[row[column]] == self._per_class
                self._rows.append(row)
            if full == self._classes:
                break
        return [row[column] for row in self._rows]

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(row, undecoded image) of some rows; those that are files of their own are fetched now."""
        for row in rows:
            image = self._rows[row][column]
            yield row, image if image["bytes"] else {**image, "bytes": _fetch(image["path"])}

    def told(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many that were read."""
        return f"{self.name}, {chosen} of the first {self._read} images"


def _fetch(address: str) -> bytes:
    """A file by its address, such as ``hf://datasets/org/data@commit/cat/1.png``."""
    import fsspec

    with fsspec.open(address, "rb") as file:
        content: bytes = file.read()
    return content
