"""What visitors bring, on the disk: in a folder of this process alone, and not for long.

gradio deletes the files that it serves. What it leaves is swept here: the empty file that each upload was received in,
uploads that broke off, folders whose files are gone, and everything when the process ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

SECONDS = 900
"""How long what a visitor brings or is shown stays on the disk."""
EVERY = 60
"""Seconds between two looks at it."""


def own_folder() -> None:
    """From now on, uploads lie in a new folder, which goes when this process ends, also when it is asked to end."""
    folder = Path(tempfile.mkdtemp(prefix="phard-uploads-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # how a Space is stopped: what is registered runs
    threading.Thread(target=_sweep_on, args=[folder], daemon=True).start()


def sweep(folder: Path, older: float) -> None:
    """Remove received files and empty folders that were not touched for ``older`` seconds."""
    before = time.time() - older
    for path in folder.iterdir():
        with suppress(OSError):  # a folder with files in it, or one that has just gone
            if path.stat().st_mtime < before:
                path.rmdir() if path.is_dir() else path.unlink()


def _sweep_on(folder: Path) -> None:
    while folder.is_dir():
        time.sleep(EVERY)
        with suppress(FileNotFoundError):
            sweep(folder, SECONDS)


async def refuse_address(*_address: Any, **_options: Any) -> NoReturn:  # noqa: ANN401 - in place of a function of gradio
    """Instead of gradio's download: the page asks no host that a visitor names."""
    import gradio as gr

    raise gr.Error("Upload the file itself: the page fetches nothing from an address.", print_exception=False)
