"""TOML files as people have them: in UTF-8, or in what Windows editors and PowerShell write."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from phard_hub.disk.reading import read_regular, text_of
from phard_hub.errors import PhardError, first_line


def read_toml(path: Path, largest: int, *, error: type[PhardError], advice: str) -> dict[str, Any]:
    """The content of a TOML file; who names it may name a link.

    Args:
        path: of the file.
        largest: bytes that it may have.
        error: what to raise.
        advice: what to give instead where it cannot be read.

    Raises:
        error: it cannot be read, is too large, or is no TOML.
    """
    try:
        place = path.resolve()
        text = text_of(read_regular(place.parent, place.name, largest))
    except (OSError, UnicodeDecodeError) as why:
        reason = why.strerror if isinstance(why, OSError) else "it is no UTF-8 text"
        raise error(f"Cannot read {path}: {reason}.", advice=advice) from why
    return parse_toml(text, str(path), error=error)


def parse_toml(text: str, name: str, *, error: type[PhardError]) -> dict[str, Any]:
    """The content of a text in TOML; ``name`` is that of its file, for errors."""
    try:
        return tomllib.loads(text)
    except RecursionError as why:
        raise error(f"{name} is nested too deeply.", advice="Write it flat.") from why
    except ValueError as why:  # the message of tomllib ends with line and column
        raise error(f"{name} is not valid TOML: {first_line(why)}.", advice="Correct that line.") from why
