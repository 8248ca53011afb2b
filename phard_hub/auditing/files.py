"""Going through JSON that nobody vouches for, and where the paths in it lead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from phard_hub.hub.snapshot import Snapshot


def json_items(snapshot: Snapshot) -> Iterator[tuple[str, str, Any]]:
    """(file, key, value) of every entry, however deep, of every JSON file but the list of shards."""
    for name in snapshot.files:
        if name.endswith(".json") and not name.endswith(".index.json"):
            for key, value in items(snapshot.json(name)):
                yield name, key, value


def items(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """(key, value) of every entry inside a JSON value, however deep."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield from current.items()
            pending += current.values()
        elif isinstance(current, list):
            pending += current


def strings(value: Any) -> Iterator[str]:  # noqa: ANN401
    """All strings inside a JSON value, except for the keys of objects."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, dict | list):
            pending += current.values() if isinstance(current, dict) else current


def leads_out(path: str) -> bool:
    """Whether a path, read on any system, may lead out of the folder that it is relative to."""
    windows = PureWindowsPath(path)
    return bool(Path(path).is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts)
