"""What `load_images` reads from: a data set that is here, or a large one of which only parts are fetched.

A table gives all its labels first, and then the images of the rows that were chosen. A large data set is
not copied to get at a few of its images: of parquet files only the column of labels is read as a whole, and
then those row groups that hold chosen images; what else there is, is streamed until enough were seen.

What a row says is a stranger's. A row that names a file instead of holding an image is believed only where
the library `datasets` wrote the name for a file of the data set itself, which each table checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from phard_hub.errors import ImagesError
from phard_hub.images.columns import Columns, of_features
from phard_hub.images.decoding import LARGEST_FILE, NO_BYTES
from phard_hub.images.disk import read_file, shown_path

_BATCH = 256


class Raw(NamedTuple):
    """The file of one image, as bytes.

    Attributes:
        row: of the table.
        where: the image is, for errors; printable.
        data: not decoded.
        problem: why there is no data, if that is the row's own fault.
    """

    row: int
    where: str
    data: bytes
    problem: ImagesError | None = None


class Table(Protocol):
    """A data set with nothing decoded.

    Attributes:
        name: Data set, revision and split, for people.
        columns: What each column holds.
        groups: int64 ``(N,)``: rows of one number can only be read together; None if each can be read alone.
    """

    name: str
    columns: Columns
    groups: Tensor | None

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all rows."""
        ...

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[Raw]:
        """The images of some rows, given in ascending order."""
        ...

    def describe(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many."""
        ...


def image_of_row(row: int, value: Any, read: Callable[[str], bytes] | None = None) -> Raw:  # noqa: ANN401
    """The image that a row holds, as bytes or as ``{"bytes": ..., "path": ...}``.

    Args:
        row: number of the row.
        value: of its image column.
        read: gives the file that a row names; raises ImagesError for names that it may not follow.

    Raises:
        ImagesError: the row names a file that it may not.
    """
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    named = path if isinstance(path, str) else ""
    where = f"row {row} ({shown_path(named)})" if named else f"row {row}"
    if data is None and named and read:
        data = read(named)
    if data is not None and not isinstance(data, bytes):
        return Raw(row, where, b"", ImagesError(f"There are no bytes of an image in {where}.", advice=NO_BYTES))
    return Raw(row, where, data or b"")


class ArrowTable:
    """A `datasets.Dataset` in the cache: any row can be read at once."""

    groups: Tensor | None = None

    def __init__(self, dataset: Any, name: str, home: Path) -> None:  # noqa: ANN401 - untyped
        """Keep a `datasets.Dataset`, and the folder of the cache in which its files are."""
        self.columns: Columns = of_features(dataset.features)
        self.name = name
        self._dataset, self._home = dataset, home.resolve()

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all rows."""
        values: list[Any] = self._dataset.data.column(column).to_pylist()
        return values

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[Raw]:
        """The images of some rows."""
        from datasets import Image as ImageFeature

        table = self._dataset
        if isinstance(table.features[column], ImageFeature):
            table = table.cast_column(column, ImageFeature(decode=False))
        table = table.select_columns([column])
        for start in range(0, len(rows), _BATCH):
            batch = list(rows[start : start + _BATCH])
            for row, value in zip(batch, table[batch][column], strict=True):
                yield image_of_row(row, value, self._read)

    def _read(self, path: str) -> bytes:
        """A file that the Hub's library put into the cache, where it is a link to another file of the cache."""
        real = Path(path).resolve()
        if not real.is_relative_to(self._home):
            raise foreign(path)
        return read_file(real, LARGEST_FILE)

    def describe(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many."""
        return f"{self.name}, {chosen} of {len(self._dataset)} images"


class Stream:
    """A large data set in another format: read from its start until there are enough images of each class."""

    groups: Tensor | None = None

    def __init__(self, dataset: Any, name: str, home: str, *, per_class: int, classes: int) -> None:  # noqa: ANN401
        """Keep a `datasets.IterableDataset`, the address that its files are below, and what is enough."""
        self.columns: Columns = of_features(dataset.features)
        self.name = name
        self._dataset, self._home = dataset.decode(False), home
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

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[Raw]:
        """The images of some rows; those that are files of their own are fetched now."""
        for row in rows:
            yield image_of_row(row, self._rows[row][column], self._fetch)

    def _fetch(self, address: str) -> bytes:
        """A file by its address, such as ``hf://datasets/org/data@commit/cat/1.png``."""
        import fsspec

        below = address.removeprefix(self._home)
        if not address.startswith(self._home) or "::" in below or ".." in below.split("/"):
            raise foreign(address)
        with fsspec.open(address, "rb") as file:
            content: bytes = file.read(LARGEST_FILE + 1)
        return content

    def describe(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many that were read."""
        return f"{self.name}, {chosen} of the first {self._read} images"


def foreign(address: str) -> ImagesError:
    """The error that says that a data set names a file that is not its own."""
    problem = f"The data set names {shown_path(address)}, which is no file of its own."
    return ImagesError(problem, advice="Do not use it, or ask who made it.")
