"""Zip files that strangers made: unpacked within limits, into one folder, and nothing outside of it."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from phard_hub.errors import InputError
from phard_hub.report import printable

MOST_FILES = 3000
LARGEST = 512 * 2**20
"""Bytes of all files together, once they are unpacked; they are counted while they come out, whatever the zip says."""
_LONGEST_NAME = 200
_BLOCK = 2**18
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ADVICE = "Zip the folder again, with plain files only."


def unpack(path: Path, folder: Path, *, largest: int = LARGEST) -> None:
    """Unpack a zip of one folder; where all lies in one folder of the zip, that one is left out.

    Args:
        path: of the zip.
        folder: new, or empty.
        largest: bytes of all files together.

    Raises:
        InputError: it is no zip, too large or too many files once unpacked, encrypted, or an entry is a link or has a
            name that leads elsewhere.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not _skipped(entry)]
            if not entries:
                raise InputError("The zip holds no files.", advice="Zip a model folder.")
            if len(entries) > MOST_FILES:
                raise InputError(f"The zip holds {len(entries)} files; at most {MOST_FILES} are read.", advice=_ADVICE)
            names = [_name(entry) for entry in entries]
            names = _without_top(names)
            if len(set(names)) < len(names):
                raise InputError("The zip holds two files of one name.", advice=_ADVICE)
            left = largest
            for entry, name in zip(entries, names, strict=True):
                left = _write(archive, entry, folder / name, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise InputError(f"The zip cannot be read: {printable(str(error), 120)}.", advice=_ADVICE) from error


def _skipped(entry: zipfile.ZipInfo) -> bool:
    """Folders, and what macOS adds."""
    return entry.is_dir() or entry.filename.startswith("__MACOSX/") or entry.filename.endswith(".DS_Store")


def _name(entry: zipfile.ZipInfo) -> PurePosixPath:
    """The path of an entry, if it is one of a regular file inside of the folder."""
    name, mode = entry.filename, entry.external_attr >> 16
    parts = name.split("/")
    if (
        not name.isprintable()
        or len(name) > _LONGEST_NAME
        or "\\" in name
        or ":" in name
        or {"", ".", ".."} & set(parts)
    ):
        raise InputError(f"The zip holds a file of the name {printable(name)!r}, which is not taken.", advice=_ADVICE)
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise InputError(f"{printable(name)} in the zip is a link or no regular file.", advice=_ADVICE)
    if entry.flag_bits & 1 or entry.compress_type not in _METHODS:
        raise InputError(f"{printable(name)} in the zip is encrypted, or packed in an unusual way.", advice=_ADVICE)
    return PurePosixPath(name)


def _without_top(names: list[PurePosixPath]) -> list[PurePosixPath]:
    tops = {name.parts[0] for name in names}
    if len(tops) == 1 and all(len(name.parts) > 1 for name in names):
        return [PurePosixPath(*name.parts[1:]) for name in names]
    return names


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("xb") as file:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                advice = "Give a smaller model here, or use `phard audit` on your own machine."
                raise InputError("The zip is too large once it is unpacked.", advice=advice)
            file.write(block)
    return left
