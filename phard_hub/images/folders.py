"""A folder with one sub-folder per class, and perhaps one above these per split."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from phard_hub.errors import ImagesError
from phard_hub.images.columns import Column, Columns
from phard_hub.images.decoding import FORMATS, LARGEST_FILE
from phard_hub.images.disk import Found, read_file, shown_path
from phard_hub.images.matching import shown
from phard_hub.images.tables import Raw

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
"""Folders that are splits, if all that lie beside them are, and the names of these splits."""
_READ = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
_READ |= {".ppm", ".pgm", ".pbm", ".pnm"} | ({".avif"} if "AVIF" in FORMATS else set())
_NOT_READ = {".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".eps", ".ps", ".pdf", ".svg", ".psd", ".ico", ".tga"}
_NOT_READ |= {".raw", ".dng", ".cr2", ".nef", ".arw", ".apng", ".pcx", ".sgi", ".dds", ".icns", ".wmf", ".emf", ".xbm"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables that the library `datasets` believes when they name files and labels; here the folders decide alone."""
_UNIMPORTANT = ("hidden", "other files")

_log = logging.getLogger(__name__)


class FolderTable:
    """The images of one split of a folder; ``label`` holds the number of the class folder that each lies in.

    Args:
        folder: that was scanned.
        found: what is in it.
        dataset: its name, for people.
        choose: which split of those that there are.

    Raises:
        ImagesError: there is no such split, or it has fewer than two classes.
    """

    groups: Tensor | None = None

    def __init__(self, folder: Path, found: Found, dataset: str, choose: Callable[[list[str]], str]) -> None:
        """Sort the files into splits and classes; nothing is read yet."""
        by_split = _by_split(list(found.files))
        split = choose([*by_split])
        passed = Counter(found.passed)
        images: dict[str, str] = {}
        for file, inside in by_split[split].items():
            if why := _why_not(inside, found.files[file]):
                passed[why] += 1
            else:
                images[file] = inside
        self._folder, self._files = folder, list(images)
        self._classes = [inside.split("/", 1)[0] for inside in images.values()]
        self._told = passed_over(passed)
        self.name = f"{dataset} ({split})"
        names = tuple(sorted(set(self._classes)))
        if len(names) < 2:
            tables = [name for name in METADATA if name in found.files and name.endswith(".csv")]
            raise _too_few(names, f"{dataset}{self._told}", list(images.values()), tables)
        self.columns: Columns = {"image": Column("image"), "label": Column("classes", names)}
        warn(dataset, passed)

    def values(self, column: str) -> list[Any]:
        """The class numbers of all images."""
        number = {name: k for k, name in enumerate(self.columns[column].names or ())}
        return [number.get(name) for name in self._classes]

    def raw(self, column: str, rows: Sequence[int]) -> Iterator[Raw]:  # noqa: ARG002 - a table's
        """The files of some images, whatever the column."""
        for row in rows:
            yield Raw(row, shown_path(self._files[row]), read_file(self._folder / self._files[row], LARGEST_FILE))

    def describe(self, chosen: int) -> str:
        """The name, how many images were chosen of how many, and what was passed over."""
        return f"{self.name}, {chosen} of {len(self._files)} images{self._told}"


def _by_split(files: list[str]) -> dict[str, dict[str, str]]:
    """By split, the path of each file and what remains of it below the split's folder.

    A folder is a split only if nothing else but splits lies beside it and there are class folders in one of
    them: words in the names of files mean nothing, and a class may be called ``train``.
    """
    images = [file for file in files if _suffix(file) in _READ and "/" in file]
    tops = {file.split("/", 1)[0].lower() for file in images}
    if not tops <= SPLITS.keys() or not any(file.count("/") > 1 for file in images):
        return {"train": {file: file for file in files}}
    beside = {file: file for file in files if "/" not in file}  # where nothing is read
    found = {SPLITS[top]: dict(beside) for top in sorted(tops)}
    for file in files:
        top, _, inside = file.partition("/")
        if inside and top.lower() in tops:
            found[SPLITS[top.lower()]][file] = inside
    return found


def is_table(file: str) -> bool:
    """Whether a file makes a folder one of parquet files."""
    return file.endswith(".parquet") and PurePosixPath(file).name not in METADATA


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _why_not(file: str, size: int) -> str:
    """Why a file is not read; empty if it is."""
    suffix = _suffix(file)
    if PurePosixPath(file).name in METADATA:
        return "metadata files"
    if suffix not in _READ:
        return "in formats that are not read" if suffix in _NOT_READ else "other files"
    if "/" not in file:
        return "outside of class folders"
    return "too large" if size > LARGEST_FILE else ""


def _too_few(names: Sequence[str], dataset: str, images: list[str], tables: Sequence[str]) -> ImagesError:
    advice = "A folder needs a sub-folder for each class, and at least two of them."
    if tables:
        advice += f" To read a list of files and labels, give it: {tables[0]} in this folder."
    if not names:
        return ImagesError(f"{dataset} cannot be read as images: no class folder holds any.", advice=advice)
    if len({image.split("/")[1] for image in images if image.count("/") > 1}) > 1:
        advice = f"If the folders in {shown(names)} are the classes, give that folder."
    return ImagesError(f"{dataset} cannot be read as images: {shown(names)} is the only class.", advice=advice)


def passed_over(passed: Mapping[str, int]) -> str:
    """What was passed over and how much of it, to follow a count of images; empty if nothing was."""
    counts = ", ".join(f"{count} {why}" for why, count in sorted(passed.items()))
    return f"; passed over: {counts}" if counts else ""


def warn(dataset: str, passed: Mapping[str, int]) -> None:
    """Say in the log what was passed over, if any of it looks like an image."""
    important = {why: count for why, count in passed.items() if why not in _UNIMPORTANT}
    if important:
        _log.warning("Not all of %s is read%s.", dataset, passed_over(important))
