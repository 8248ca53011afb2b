"""Processes that look at strangers' models, each at one: with a folder of its own and without a token.

A page keeps one ready that has imported the libraries already, so that whoever comes next waits a second and not ten.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

FOLDER_PREFIX = "phard-check-"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "HF_ENDPOINT", "NO_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "SSL_CERT_FILE")
_QUIET = (
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
)


@dataclass(frozen=True)
class Worker:
    """A process that answers one request, and the folder that it has to itself."""

    process: subprocess.Popen[bytes]
    folder: Path

    @classmethod
    def started(cls) -> Self:
        """A new one, in a new folder, that waits for its request."""
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        try:
            return cls(_start(folder), folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def ask(self, asked: str) -> None:
        """Write the request; that a process has ended shows in what it says."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(asked.encode())
            self.process.stdin.close()

    def end(self) -> None:
        """End the process and all that it started, and remove its folder."""
        _end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)


class Spare:
    """A process that has everything imported and waits for the next check, of which it does one and no other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Worker | None = None
        self._wanted = False

    def keep(self) -> None:
        """From now on, have one; it ends with this process."""
        atexit.register(self.end)
        self._wanted = True
        self.prepare()

    def prepare(self) -> None:
        """Start one if there is none and one is wanted."""
        with self._lock:
            if self._wanted and self._waiting is None:
                self._waiting = Worker.started()

    def take(self) -> Worker:
        """The one that waits, or a new one."""
        with self._lock:
            worker, self._waiting = self._waiting, None
        if worker is not None and worker.process.poll() is None:
            return worker
        if worker is not None:
            worker.end()
        return Worker.started()

    def end(self) -> None:
        """End the one that waits, and have none from now on."""
        with self._lock:
            worker, self._waiting, self._wanted = self._waiting, None, False
        if worker is not None:
            worker.end()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= dict.fromkeys(_QUIET, "1")
    environment |= {"HOME": str(folder), "HF_HOME": str(folder / "hub"), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])}
    return subprocess.Popen(
        [sys.executable, "-m", "spaces_app.worker"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError, AttributeError):
            pipe.close()  # type: ignore[union-attr]


SPARE = Spare()
"""Of this process; it has none before `Spare.keep`."""
