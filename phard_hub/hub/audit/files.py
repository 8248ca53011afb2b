"""Reading JSON that nobody vouches for, and where paths really lead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from phard_hub.hub.pull import Snapshot

_LARGEST_JSON = 32 * 2**20


def read_json(snapshot: Snapshot, name: str) -> Any:  # noqa: ANN401 - whatever the JSON holds
    """The content of a JSON file; None if it is not valid or far larger than any config."""
    path = snapshot.folder / name
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= _LARGEST_JSON else None
    except (ValueError, RecursionError):
        return None


def read_config(snapshot: Snapshot) -> dict[str, Any]:
    """The content of config.json; empty if it is missing or no JSON object."""
    config = read_json(snapshot, "config.json") if "config.json" in snapshot.files else None
    return config if isinstance(config, dict) else {}


def json_items(snapshot: Snapshot) -> Iterator[tuple[str, str, Any]]:
    """(file, key, value) of every entry, however deep, of every JSON file but the list of shards."""
    for name in snapshot.files:
        if name.endswith(".json") and not name.endswith(".index.json"):
            for key, value in items(read_json(snapshot, name)):
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
    """All strings inside a JSON value, but for the keys of objects."""
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


def lies_inside(snapshot: Snapshot, name: str) -> bool:
    """Whether a file is really in the snapshot's folder, or in that part of the Hub's cache that is its own."""
    homes = [snapshot.folder.resolve()]
    if homes[0].parent.name == "snapshots":  # the Hub's cache: snapshots/<commit>/file -> blobs/<hash>
        homes.append(homes[0].parent.parent / "blobs")
    target = (snapshot.folder / name).resolve()
    return any(target.is_relative_to(home) for home in homes)
