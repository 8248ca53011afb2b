"""A kill at any moment leaves the old version or the new one, and doing it again ends as if nobody had been killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phard_hub.errors import LOST

ROOT = Path(__file__).parents[2]
JOBS = int(os.environ.get("PHARD_KILLS", "2"))
"""Kills of the whole job; PHARD_KILLS=50 tries many more."""


def told(module: str, *arguments: object) -> Any:
    """What a process of its own says."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"tests.border.{module}", *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("former", ["former", "nothing"])
@pytest.mark.parametrize("way", ["exchange", "two steps"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_kills_at_every_call_of_the_system(kind: str, way: str, former: str, tmp_path: Path) -> None:
    found = told("killed", "each", tmp_path / "place", kind, way, former)
    after = found["after"]
    old = 0 if former == "former" else None
    turn = after.index(1)  # from one call on, it is the new version, and never again the old one
    assert after == [old] * turn + [1] * (len(after) - turn)
    assert 0 < turn < len(after) > 10
    assert found["again"] == [[1, ["it"]]] * len(after)
    assert found["status"] == [0]


@pytest.mark.parametrize("way", ["exchange", "two steps"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_fifty_kills_at_random_moments(kind: str, way: str, tmp_path: Path) -> None:
    found = told("killed", "random", tmp_path / "place", kind, way, 50)
    assert len(found["after"]) == 50
    assert set(found["after"]) <= {0, 1, 2}
    assert found["again"] == [[1, ["it"]]]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_job_ends_with_the_same_weights(
    processes: int, tiny_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    found = told("killed_job", tiny_checkpoint, images, tmp_path / "place", JOBS, processes)
    assert found["whole"]["remains"] == ["hardened"]
    assert any(
        -signal.SIGKILL in kill["ended"] for kill in found["kills"]
    )  # on a busy machine, some come after the end
    for kill in found["kills"]:
        assert {name: kill[name] for name in found["whole"]} == found["whole"], kill
        assert kill["codes"] == found["codes"]
        assert kill["waited"] < 10
        if -signal.SIGKILL in kill["ended"]:
            assert set(kill["ended"]) <= {-signal.SIGKILL, LOST}
