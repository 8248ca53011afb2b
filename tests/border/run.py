"""Run a command under the watch of `tests.border.watched`, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.command import Done, hear_interrupts
from tests.ready import python

ROOT = Path(__file__).parents[2]
SECONDS = 120


def watched(
    *arguments: object,
    folders: tuple[Path, ...] = (),
    cwd: Path | None = None,
    seconds: float = SECONDS,
    from_the_start: bool = False,
) -> tuple[Done, list[str]]:
    """How ``phard arguments`` ended, and what it did that it may not do (see `tests.border.watched`).

    Args:
        arguments: of the command.
        folders: that a stranger wrote: they may be read, and nothing in them may run.
        cwd: working directory of the command.
        seconds: a command that takes longer hangs, and the test fails.
        from_the_start: watch the imports of the libraries, too; otherwise they were imported before (`tests.ready`).
    """
    with tempfile.TemporaryDirectory(prefix="phard-watched-") as place:
        notes, scratch = Path(place) / "notes", Path(place) / "tmp"
        scratch.mkdir()
        environment = {"TMPDIR": str(scratch), "COLUMNS": "200"}
        told = [notes, *folders, "--", *arguments]
        if from_the_start:
            done = _anew(told, environment, cwd, seconds)
        else:
            done = python(
                "from tests.border.watched import main; main()", *told, env=environment, cwd=cwd, timeout=seconds
            )
        lines = notes.read_text(errors="replace").splitlines() if notes.exists() else []
    return done, lines


def _anew(told: Sequence[object], environment: Mapping[str, str], cwd: Path | None, seconds: float) -> Done:
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.run(
        [sys.executable, "-P", "-m", "tests.border.watched", *map(str, told)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        cwd=cwd,
        env={**os.environ, **environment, "PYTHONPATH": python_path},
        preexec_fn=hear_interrupts,
        check=False,
    )
    return Done(process.returncode, process.stdout, process.stderr)
