"""Parquet files, here or on the Hub: labels are read of all rows, images of the row groups that hold chosen ones.

A footer may claim what it likes, and few bytes may unpack to many: there are limits, and columns of bytes
are read as dictionaries, so that one value that stands in a million rows is in memory once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby
from typing import Any, BinaryIO

import torch
from torch import Tensor

from phard_hub.errors import ImagesError
from phard_hub.images.classes import LONGEST_NAME
from phard_hub.images.columns import Columns, of_schema
from phard_hub.images.decoding import NO_BYTES
from phard_hub.images.tables import Raw, image_of_row
from phard_hub.report.wording import printable

LARGEST_GROUP = 4 * 2**30
"""Bytes that a column of one row group may have when it is unpacked."""
MOST_ROWS = 50_000_000
_BATCH = 32
"""Rows; the images of so many are in memory, each of which may be large."""
_CONNECTIONS = 8

Opener = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens one parquet file, here or on the Hub."""


class ParquetFiles:
    """Parquet files of which only parts are read.

    Args:
        files: openers; nothing is read yet.
        name: data set, revision and split, for people.
        columns: what each column holds; if None, the files say it, and each has to say the same.
        whole: row groups are quickly read, so any row may be chosen.
        passed: what else lay beside the files, for people.
    """

    groups: Tensor | None = None

    def __init__(
        self, files: Sequence[Opener], name: str, *, columns: Columns | None = None, whole: bool, passed: str = ""
    ) -> None:
        """Read what the first file says of the columns, unless that is known."""
        self._files, self._whole, self._passed = files, whole, passed
        self._told = columns is None
        self.columns, self.name = (self._first() if columns is None else columns), name
        self._group_of: Tensor
        self._starts: list[tuple[int, int, int]] = []  # (first row, file, row group) of each row group
        self._rows = self._read = 0

    def _first(self) -> Columns:
        from pyarrow.parquet import read_schema

        with self._files[0]() as source:
            return of_schema(read_schema(source))

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all rows."""
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            found = list(pool.map(lambda file: self._column(file, column), range(len(self._files))))
        values: list[Any] = []
        groups: list[int] = []
        for file, parts in enumerate(found):
            for group, part in enumerate(parts):
                self._starts.append((len(values), file, group))
                groups += [len(self._starts) - 1] * len(part)
                values += part
        self._group_of, self._rows = torch.tensor(groups, dtype=torch.int64), len(values)
        self.groups = None if self._whole else self._group_of
        return values

    def _column(self, file: int, column: str) -> list[list[Any]]:
        """The values of a column, by row group."""
        with self._open(file, column) as parquet:
            return [
                [value for batch in _batches(parquet, group, column) for value in label_values(batch, column)]
                for group in range(parquet.num_row_groups)
            ]

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[Raw]:
        """The images of some rows; only the row groups that they lie in are read."""
        of_row = self._group_of[torch.as_tensor(rows, dtype=torch.int64)].tolist()
        placed = [(*self._starts[group], row) for group, row in zip(of_row, rows, strict=True)]
        for file, inside in groupby(placed, key=lambda place: place[1]):
            with self._open(file, column) as parquet:
                for (start, _, group), chosen in groupby(inside, key=lambda place: place[:3]):
                    self._read += parquet.metadata.row_group(group).num_rows
                    yield from _images(parquet, group, column, start, [row for *_, row in chosen])

    @contextmanager
    def _open(self, file: int, column: str) -> Iterator[Any]:
        """A `pyarrow.parquet.ParquetFile` whose column can be read without danger."""
        from pyarrow.parquet import ParquetFile, read_metadata

        with self._files[file]() as source:
            metadata = read_metadata(source)
            found = of_schema(metadata.schema.to_arrow_schema()).get(column)
            if found is None or (self._told and found != self.columns[column]):
                problem = f"The parquet files do not agree in what {printable(column)!r} holds."
                raise ImagesError(problem, advice="Give files that were written together, or one of them.")
            _check_claims(metadata, column)
            yield ParquetFile(source, metadata=metadata, read_dictionary=_of_bytes(metadata, column))

    def describe(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many, and read for it."""
        read = "" if self._whole else f", {self._read} read"
        return f"{self.name}, {chosen} of {self._rows} images{read}{self._passed}"


def _check_claims(metadata: Any, column: str) -> None:  # noqa: ANN401 - untyped
    """Refuse what would not fit the memory."""
    if metadata.num_rows > MOST_ROWS:
        problem = f"A parquet file claims {metadata.num_rows} rows; at most {MOST_ROWS:,} are read."
        raise ImagesError(problem, advice="Give a part of it.")
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        leaves = [leaf for leaf in map(group.column, range(group.num_columns)) if _is_of(leaf, column)]
        size = sum(max(leaf.total_uncompressed_size, leaf.total_compressed_size) for leaf in leaves)
        if size > LARGEST_GROUP:
            problem = f"{printable(column)!r} has {size} bytes in one row group; at most {LARGEST_GROUP} are read."
            raise ImagesError(problem, advice="Write the file with smaller row groups.")


def _is_of(leaf: Any, column: str) -> bool:  # noqa: ANN401 - untyped
    path: str = leaf.path_in_schema
    return path == column or path.startswith(f"{column}.")


def _of_bytes(metadata: Any, column: str) -> list[str]:  # noqa: ANN401 - untyped
    """What of a column can be read as a dictionary, of which arrow has to know that it is there."""
    leaves = map(metadata.schema.column, range(metadata.num_columns))
    named = {leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"}
    return sorted(named & {column, f"{column}.bytes"})


def _batches(parquet: Any, group: int, column: str) -> Iterator[Any]:  # noqa: ANN401 - untyped
    """A column of a row group, in parts; of images only their bytes."""
    from pyarrow import types

    kind = parquet.schema_arrow.field(column).type
    is_struct = types.is_struct(kind)
    if is_struct and kind.get_field_index("bytes") < 0:
        raise ImagesError(f"There are no bytes of images in {printable(column)!r}.", advice=NO_BYTES)
    names = [f"{column}.bytes" if is_struct else column]
    for batch in parquet.iter_batches(_BATCH, row_groups=[group], columns=names):
        found = batch.column(column)
        yield found.flatten()[0] if is_struct else found


def label_values(array: Any, column: str) -> list[Any]:  # noqa: ANN401 - untyped
    """The values of a column of labels, of words each only once in memory.

    Raises:
        ImagesError: they are neither words nor whole numbers.
    """
    from pyarrow import compute, types

    if types.is_dictionary(array.type):
        words = array.dictionary
        longest = compute.max(compute.binary_length(words)).as_py() if _is_text(words.type) else 0
        if (longest or 0) > 4 * LONGEST_NAME:
            problem = f"{printable(column)!r} holds a class name of {longest} bytes."
            raise ImagesError(problem, advice="Name another label column.")
        names = words.to_pylist()
        return [None if k is None else names[k] for k in array.indices.to_pylist()]
    if not (_is_text(array.type) or types.is_integer(array.type) or types.is_boolean(array.type)):
        problem = f"{printable(column)!r} holds no class names or numbers, but {printable(str(array.type))}."
        raise ImagesError(problem, advice="Name another label column.")
    values: list[Any] = array.to_pylist()
    return values


def _is_text(kind: Any) -> bool:  # noqa: ANN401 - untyped
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _images(parquet: Any, group: int, column: str, start: int, rows: list[int]) -> Iterator[Raw]:  # noqa: ANN401
    """The images of some rows of a row group whose first row is ``start``."""
    done = 0
    for batch in _batches(parquet, group, column):
        end = bisect_left(rows, start + len(batch))
        yield from (image_of_row(row, batch[row - start].as_py()) for row in rows[done:end])
        start, done = start + len(batch), end
    if done < len(rows):
        raise ImagesError(f"Row {rows[done]} is missing from {printable(column)!r}.", advice="Repair the file.")
