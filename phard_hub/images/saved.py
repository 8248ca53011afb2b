"""What `save_to_disk` of the library `datasets` wrote: a folder of Arrow files, or one such folder a split."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from phard_hub.disk.reading import read_regular
from phard_hub.errors import ImagesError
from phard_hub.images.columns import Columns, of_schema
from phard_hub.images.disk import open_file, shown_path
from phard_hub.images.parquet import label_values
from phard_hub.images.tables import Raw, image_of_row
from phard_hub.report.base import unambiguous
from phard_hub.report.wording import printable

_STATE = "state.json"
_LARGEST_STATE = 16 * 2**20


class SavedTable:
    """The Arrow files of one split, read from their start; rows have to hold their images.

    Args:
        files: one at least.
        name: of the data set and its split, for people.
    """

    groups: Tensor | None = None

    def __init__(self, files: Sequence[Path], name: str) -> None:
        """Read what the first file says of its columns."""
        from pyarrow.ipc import open_stream

        self._files, self.name, self._count = files, name, 0
        with open_file(files[0]) as source:
            self.columns: Columns = of_schema(open_stream(source).schema)

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all rows."""
        for path in self._files:
            _require_plain(path)
        values = [value for part in self._parts(column) for value in label_values(part, column)]
        self._count = len(values)
        return values

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[Raw]:
        """The images of some rows."""
        start, waiting = 0, list(reversed(rows))
        for part in self._parts(column):
            while waiting and waiting[-1] < start + len(part):
                row = waiting.pop()
                yield image_of_row(row, part[row - start].as_py())
            start += len(part)
        if waiting:
            raise ImagesError(f"Row {waiting[-1]} is missing from {printable(column)!r}.", advice="Save it again.")

    def _parts(self, column: str) -> Iterator[Any]:
        """A column, part by part. An Arrow file is read as it lies in memory, so each part is checked first."""
        from pyarrow.ipc import IpcReadOptions, open_stream

        for path in self._files:
            with open_file(path) as source:
                place = open_stream(source).schema.get_field_index(column)
            if place < 0:
                problem = f"{shown_path(path.name)} has no column {printable(column)!r}, which other files have."
                raise ImagesError(problem, advice="Save the data set again.")
            with open_file(path) as source:
                for batch in open_stream(source, options=IpcReadOptions(included_fields=[place])):
                    batch.validate(full=True)
                    yield batch.column(0)

    def describe(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many."""
        return f"{self.name}, {chosen} of {self._count} images"


def _require_plain(path: Path) -> None:
    """Refuse what `datasets` never writes: few bytes of compressed Arrow may unpack to more than the memory holds."""
    from pyarrow.ipc import MessageReader

    with open_file(path) as source:
        for message in MessageReader.open_stream(source):
            batch = message.type == "record batch"
            if message.type != "schema" and (not batch or _is_compressed(message.metadata.to_pybytes())):
                problem = f"{shown_path(path.name)} is compressed, or holds more than rows."
                raise ImagesError(problem, advice="Save the data set with `save_to_disk` of datasets.")


def _is_compressed(message: bytes) -> bool:
    """Whether the fourth field of a record batch is there, which is the third of its message (Message.fbs of Arrow)."""
    header = _field(message, _number("<I", message, 0), 2)
    return bool(_field(message, header + _number("<I", message, header), 3))


def _field(data: bytes, table: int, number: int) -> int:
    """Where a table of a flatbuffer has a field; 0 if it does not have it."""
    fields = table - _number("<i", data, table)
    place = 4 + 2 * number
    inside = _number("<H", data, fields + place) if place < _number("<H", data, fields) else 0
    return table + inside if inside else 0


def _number(form: str, data: bytes, place: int) -> int:
    number: int = struct.unpack_from(form, data, place)[0]
    return number


def saved_splits(folder: Path, files: Mapping[str, int]) -> dict[str, list[Path]]:
    """The Arrow files of each split of a saved data set; empty if the folder is none.

    Args:
        folder: that was scanned.
        files: that lie in it; no other is ever read, whatever the data set says of itself.

    Raises:
        ImagesError: it does not say which files are its own.
    """
    if {_STATE, "dataset_info.json"} <= files.keys():
        return {"train": _own(folder, "", files)}
    if "dataset_dict.json" not in files:
        return {}
    inner = [name.removesuffix(_STATE) for name in files if name.endswith(f"/{_STATE}") and name.count("/") == 1]
    return {place.rstrip("/"): _own(folder, place, files) for place in inner}


def _own(folder: Path, place: str, files: Mapping[str, int]) -> list[Path]:
    problem = f"{shown_path(place + _STATE)} does not say which files hold the data set"
    try:
        state = unambiguous(read_regular(folder, place + _STATE, _LARGEST_STATE))
        own = [place + entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ImagesError(f"{problem}.", advice="Save the data set again.") from error
    foreign = [name for name in own if name not in files]
    if foreign or not own:
        problem += f": {shown_path(foreign[0])} is no file of its own" if foreign else ""
        raise ImagesError(f"{problem}.", advice="Save the data set again.")
    return [folder / name for name in own]
