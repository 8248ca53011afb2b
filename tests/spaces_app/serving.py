"""The page as `phard demo` serves it, in a process of its own that talks to a Hub on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Page:
    """A page that is served: where, by which process, where its temporary files are, and how long it took to start."""

    url: str
    pid: int
    temporary: Path
    seconds: float


@contextmanager
def served(command: list[str] | None = None, cwd: Path | None = None, **environment: str) -> Iterator[Page]:
    """Serve the page until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = command or [sys.executable, "-m", "phard_hub", "demo", "--port", port]
    with tempfile.TemporaryDirectory(prefix="phard-page-", ignore_cleanup_errors=True) as folder:
        paths = {"TMPDIR": folder, "GRADIO_TEMP_DIR": f"{folder}/gradio", "GRADIO_SERVER_PORT": port}
        environment = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", **paths, **environment}
        with (Path(folder) / "log").open("wb") as log:
            started = time.monotonic()
            process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=log)
            try:
                url = f"http://127.0.0.1:{port}"
                _wait(process, url, Path(folder) / "log")
                yield Page(url, process.pid, Path(folder), time.monotonic() - started)
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"The page does not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.1)
