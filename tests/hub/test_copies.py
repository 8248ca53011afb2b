"""The private copies of a model's files: whose they are, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from phard_hub.disk.atomic import scratch_folder
from phard_hub.hub.copies import PrivateFolder

HOLDS = """
import signal
from phard_hub.hub.copies import PrivateFolder
kept = PrivateFolder()
(kept.path / "weights").write_bytes(bytes(1000))
print(kept.path, flush=True)
signal.pause()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files lie, here and in the processes that are started."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def held() -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a copy, and where that lies."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_copy_is_gone_when_nobody_holds_it(place: Path) -> None:
    copy = PrivateFolder()
    assert copy.path.parent == place
    assert copy.path.stat().st_mode & 0o777 == 0o700
    del copy
    assert list(place.iterdir()) == []


def test_what_a_kill_left_is_removed_and_what_others_use_is_not(place: Path) -> None:
    """Copies of models of gigabytes were left behind for ever."""
    (killed, left), (alive, used) = held(), held()
    try:
        killed.kill()
        killed.wait()
        assert {left, used} <= set(place.iterdir())
        copy = PrivateFolder()
        assert set(place.iterdir()) == {used, copy.path}
        assert (used / "weights").stat().st_size == 1000
    finally:
        alive.send_signal(signal.SIGKILL)
        alive.wait()


def test_only_folders_of_this_user_and_no_links_are_removed(place: Path) -> None:
    (place / "mine").mkdir()
    (place / "phard-model-link").symlink_to("mine")
    if os.geteuid() == 0:
        (place / "phard-model-theirs").mkdir()
        os.chown(place / "phard-model-theirs", 1234, 1234)
    before = set(place.iterdir())
    fresh, handle = scratch_folder("phard-model-")
    os.close(handle)
    assert set(place.iterdir()) == {*before, fresh}


MAKES = """
from phard_hub.hub.copies import PrivateFolder
for number in range(100):
    copy = PrivateFolder()
    (copy.path / "file").write_text("mine")
    assert (copy.path / "file").read_text() == "mine"
"""


def test_processes_that_make_copies_at_once_leave_each_other_alone(place: Path) -> None:
    """One removed the folder of another between the moment when it was made and that when it was locked."""
    processes = [subprocess.Popen([sys.executable, "-c", MAKES], stderr=subprocess.PIPE) for _ in range(6)]
    assert [process.communicate()[1] for process in processes] == [b""] * 6
    assert list(place.iterdir()) == []
