"""Writing one file as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from phard_hub.errors import OutputError


def check_place(path: Path) -> None:
    """Find out before long work whether `write_text` could write this file; leaves nothing behind.

    Raises:
        OutputError: it could not.
    """
    if path.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder.", advice="Give the name of a file.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _refused(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place and rename it into it, so that a failure leaves the old one.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _refused(path, error) from error
    fresh = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> OutputError:
    advice = "Check the folder, its permissions and the free space."
    return OutputError(f"Cannot write {path}: {error.strerror}.", advice=advice)
