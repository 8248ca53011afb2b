"""Write a toy folder or file in processes that kill themselves, for `tests.border.test_kills`; without torch.

    python -m tests.border.killed each PLACE KIND WAY [former]   one process for each call of the system, killed there
    python -m tests.border.killed random PLACE KIND WAY TIMES     processes that are killed at random moments

KIND is "file" or "folder"; WAY is "exchange", or "two steps" for systems that cannot exchange two names.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from phard_hub.disk import atomic as files

CALLS = ("open", "close", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "scandir", "lstat", "stat")
SIZES = {"a": 30_000, "b": 10, "deep/c": 70_000}


def content(version: int) -> dict[str, bytes]:
    """What a version of the folder holds; of a file, "a" is all."""
    return {name: bytes([65 + version]) * (size + version) for name, size in SIZES.items()}


def write(path: Path, kind: str, version: int) -> None:
    if kind == "file":
        return files.write_bytes(path, content(version)["a"])
    with files.new_folder(path) as folder:
        (folder / "deep").mkdir()
        for name, data in content(version).items():
            (folder / name).write_bytes(data)
    return None


def read(path: Path, kind: str) -> int | None:
    """The version that is there, None for nothing; anything else is an error."""
    if kind == "folder":
        files.restore(path)
    if not path.exists():
        return None
    if kind == "file":
        found = {"a": path.read_bytes()}
    else:
        found = {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}
    for version in range(3):
        if found == {name: content(version)[name] for name in (["a"] if kind == "file" else SIZES)}:
            return version
    raise AssertionError(f"{path} holds {[(name, data[:1], len(data)) for name, data in sorted(found.items())]}")


def in_this_way(way: str) -> None:
    """Do without the exchange of two names, as on a system that has none."""
    if way != "exchange":
        files._exchange = lambda one, other: False


def die_at(number: int) -> None:
    """Kill this process at its next call of this number, counted from 0."""
    left = count()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            if next(left) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return instead

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    files._exchange = counted(files._exchange)


def each(place: Path, kind: str, former: bool) -> dict[str, list[Any]]:
    """What was there after each kill, and what a second attempt made of it, to the attempt that nobody killed."""
    after, again = [], []
    for number in count():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        path = place / "it"
        if former:
            write(path, kind, 0)
        child = os.fork()
        if child == 0:
            die_at(number)
            write(path, kind, 1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        after.append(read(path, kind))
        write(path, kind, 1)
        again.append([read(path, kind), sorted(each.name for each in place.iterdir())])
        if not os.WIFSIGNALED(status):
            return {"after": after, "again": again, "status": [status]}
    raise AssertionError


def at_random(place: Path, kind: str, times: int) -> dict[str, list[Any]]:
    """What was there after kills at random moments of processes that write one version after the other."""
    moments, path = random.Random(0), place / "it"
    place.mkdir()
    write(path, kind, 0)
    after = []
    for _ in range(times):
        child = os.fork()
        if child == 0:
            for number in count():
                write(path, kind, number % 3)
        time.sleep(moments.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        after.append(read(path, kind))
    write(path, kind, 1)
    return {"after": after, "again": [[read(path, kind), sorted(each.name for each in place.iterdir())]]}


def main() -> None:
    verb, place, kind, way, *more = sys.argv[1:]
    in_this_way(way)
    told = each(Path(place), kind, "former" in more) if verb == "each" else at_random(Path(place), kind, int(more[0]))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
