"""Run a command under the watch of `tests.border.watched`, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.command import Done, hear_interrupts

ROOT = Path(__file__).parents[2]
SECONDS = 120


def watched(
    *arguments: object, folders: tuple[Path, ...] = (), cwd: Path | None = None, seconds: float = SECONDS
) -> tuple[Done, list[str]]:
    """How ``phard arguments`` ended, and what it did that it may not do (see `tests.border.watched`).

    Args:
        arguments: of the command.
        folders: that a stranger wrote: they may be read, and nothing in them may run.
        cwd: working directory of the command.
        seconds: a command that takes longer hangs, and the test fails.
    """
    with tempfile.TemporaryDirectory(prefix="phard-watched-") as place:
        notes, scratch = Path(place) / "notes", Path(place) / "tmp"
        scratch.mkdir()
        python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": python_path, "TMPDIR": str(scratch), "COLUMNS": "200"}
        process = subprocess.run(
            [sys.executable, "-P", "-m", "tests.border.watched", notes, *folders, "--", *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            cwd=cwd,
            env=environment,
            preexec_fn=hear_interrupts,
            check=False,
        )
        lines = notes.read_text(errors="replace").splitlines() if notes.exists() else []
    return Done(process.returncode, process.stdout, process.stderr), lines
