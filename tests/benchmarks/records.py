"""What every result is written with: the command, the commit and the time, so that it can be made again."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"


def _code() -> dict[str, Any]:
    """The commit, and what of the package differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=True).stdout

    changed = [line[3:] for line in git("status", "--porcelain").splitlines()]
    return {"commit": git("rev-parse", "HEAD").strip(), "dirty": [f for f in changed if f.startswith("phard_hub")]}


CODE = _code()
"""Asked at the start: a commit made while a benchmark runs is not what it ran."""


def timed(act: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What comes of it, and the seconds that it took: those of the processors, and those that passed."""
    cpu, wall = time.process_time(), time.perf_counter()
    came = act()
    return came, {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall}


def write(path: Path, module: str, content: dict[str, Any]) -> None:
    """Write a result of ``python -m module`` beside what is needed to make it again."""
    arguments = ["DIR" if Path(word).is_dir() else Path(word).name for word in sys.argv[1:]]
    head = {
        "command": shlex.join(["python", "-m", module, *arguments]),
        **CODE,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": torch.get_num_threads(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | content, indent=1) + "\n")
