"""Exit codes under the launchers of processes: what the README says of them is so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHERS = {
    "accelerate": ["accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"],
    "torchrun": ["torch.distributed.run", "--nproc_per_node", "1"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_makes_one_of_two(launcher: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", *LAUNCHERS[launcher], "-m", "phard_hub", "gate", str(tmp_path / "none")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "phard: There is no file or folder" in done.stderr
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert "`torchrun` makes 1 of all\nbut 0" in readme
