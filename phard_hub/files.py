"""Writing one file as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from phard_hub.errors import OutputError


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place and rename it into it, so that a failure leaves the old one.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(
            f"Cannot write {path}: {error.strerror}.", advice="Check the folder, its permissions and the free space."
        ) from error
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
        raise OutputError(f"Cannot write {path}: {error.strerror}.", advice="Check permissions and space.") from error
