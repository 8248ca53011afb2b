"""What visitors bring is not left on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from spaces_app.uploads import sweep

SERVES = """
import os, time
from pathlib import Path
from spaces_app.uploads import own_folder
own_folder()
folder = Path(os.environ["GRADIO_TEMP_DIR"])
(folder / "upload").mkdir()
(folder / "upload" / "model.zip").write_bytes(b"brought")
print(folder, flush=True)
time.sleep(60)
"""


def test_what_is_old_and_empty_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    for folder in (kept, gone):
        folder.mkdir()
    (kept / "image.png").write_bytes(b"served by gradio, which deletes it")
    received, arriving = tmp_path / "tmp-received", tmp_path / "tmp-arriving"
    received.touch()
    arriving.touch()
    for path in (kept, gone, received):
        os.utime(path, (time.time() - 1000,) * 2)
    sweep(tmp_path, 900)
    assert sorted(tmp_path.rglob("*")) == sorted([kept, kept / "image.png", arriving])


def test_nothing_is_left_when_the_process_is_asked_to_end() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVES], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert list(folder.iterdir())
        process.terminate()
        assert process.wait(10) == 0
    assert not folder.exists()
