"""A list of images: a CSV file with the path and the label of each, where paths lead to files beside or below it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from phard_hub.disk.reading import open_regular, text_of
from phard_hub.errors import ImagesError
from phard_hub.images.columns import Column, Columns
from phard_hub.images.decoding import LARGEST_FILE
from phard_hub.images.disk import read_file, shown_path
from phard_hub.images.matching import shown
from phard_hub.images.tables import Raw

_PATHS = ("file_name", "filename", "path", "image_path", "filepath", "file", "image")
_LABELS = ("label", "labels", "class", "target")
_SEPARATORS = ",;\t"
_LARGEST_LIST = 256 * 2**20
_FORM = "Begin with a line such as file_name,label and write the path and the label of one image a line."

_BESIDE = "Write paths relative to the list, of regular files beside or below it."


class ListTable:
    """The images that a CSV file lists; nothing of them is read yet.

    Args:
        path: of the list.
        name: of the data set and its split, for people.

    Raises:
        ImagesError: it is no such list.
    """

    groups: Tensor | None = None

    def __init__(self, path: Path, name: str) -> None:
        """Read the list."""
        self.name, self._folder = name, path.parent
        head, *self._rows = _lines(path)
        names = [word.strip() for word in head]
        image = next((word for word in names if word.lower() in _PATHS), None)
        if image is None or not any(word.lower() in _LABELS for word in names) or len(set(names)) < len(names):
            problem = f"{shown_path(path)} has the columns {shown(names)}; paths are in one of {', '.join(_PATHS)}"
            raise ImagesError(f"{problem}, labels in one of {', '.join(_LABELS)}.", advice=_FORM)
        label = next(word for word in names if word.lower() in _LABELS)
        self._place = {word: k for k, word in enumerate(names)}
        others = {word: Column("other") for word in names}
        self.columns: Columns = others | {image: Column("image"), label: Column("plain")}

    def values(self, column: str) -> list[Any]:
        """The values of a column, of all images."""
        return [row[self._place[column]].strip() or None for row in self._rows]

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[Raw]:
        """The files of some images."""
        for row in rows:
            path = self._rows[row][self._place[column]].strip()
            if "\\" in path and not (self._folder / path).exists():
                path = path.replace("\\", "/")  # as Windows writes it
            where = f"row {row} ({shown_path(path)})"
            try:
                raw = Raw(row, where, self._file(path))
            except OSError as error:
                problem = ImagesError(f"Cannot read {shown_path(path)}: {error.strerror}.", advice=_BESIDE)
                raw = Raw(row, where, b"", problem)
            yield raw

    def _file(self, path: str) -> bytes:
        below = PurePosixPath(path)
        if below.is_relative_to(self._folder.absolute()):
            below = below.relative_to(self._folder.absolute())
        with open_regular(self._folder, str(below)) as file:
            return file.read(LARGEST_FILE + 1)

    def describe(self, chosen: int) -> str:
        """The name, and how many images were chosen of how many."""
        return f"{self.name}, {chosen} of {len(self._rows)} images"


def _lines(path: Path) -> list[list[str]]:
    """The lines of a CSV file that are not empty, of which all have as many columns as the first.

    Raises:
        ImagesError: they have not, there are none, it is too large, or no text.
    """
    content = read_file(path, _LARGEST_LIST)
    if len(content) > _LARGEST_LIST:
        problem = f"{shown_path(path)} has more than {_LARGEST_LIST // 2**20} MiB."
        raise ImagesError(problem, advice="Give a shorter list.")
    try:
        text = text_of(content)
        table = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_separator(text))
        lines = [line for line in table if line]
    except (UnicodeDecodeError, csv.Error) as error:
        is_text = not isinstance(error, UnicodeDecodeError)
        reason, advice = (str(error), _FORM) if is_text else ("it is no UTF-8 text", "Save it as CSV in UTF-8.")
        raise ImagesError(f"{shown_path(path)} cannot be read as a list: {reason}.", advice=advice) from error
    if not lines:
        raise ImagesError(f"{shown_path(path)} is empty.", advice=_FORM)
    odd = next((k for k, line in enumerate(lines) if len(line) != len(lines[0])), None)
    if odd is not None:
        problem = f"Row {odd} of {shown_path(path)} has {len(lines[odd])} columns, and the first line {len(lines[0])}."
        raise ImagesError(problem, advice='Put paths with commas into "quotation marks".')
    return lines


def _separator(text: str) -> str:
    """What stands between the names of columns: a comma, or what spreadsheets of other countries write."""
    head = text.lstrip().splitlines()[:1]
    return max(_SEPARATORS, key=head[0].count) if head else ","
