"""Processes that share jobs: all are done, each once, whoever dies, fails or is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from phard_hub.errors import ImagesError
from phard_hub.trials.workers import Died, in_processes
from tests.command import hear_interrupts

ROOT = Path(__file__).parents[2]


def square(number: int) -> tuple[int, int]:
    """Dies at 3 and 4, is wrong use at 5."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        os._exit(7)
    if number == 5:
        raise ImagesError("No images.", advice="Give some.")
    return number * number, os.getpid()


def test_each_job_is_done_once_and_a_dead_process_takes_no_other_job_along() -> None:
    done = dict(in_processes(square, [0, 1, 3, 2, 4, 6], 2))
    killed, left = done.pop(3), done.pop(4)
    results = {job: result for job, result in done.items() if not isinstance(result, Died)}
    assert {job: result[0] for job, result in results.items()} == {0: 0, 1: 1, 2: 4, 6: 36}
    assert os.getpid() not in {result[1] for result in results.values()}
    assert str(killed) == "The process was killed by SIGKILL; was there enough memory?"
    assert str(left) == "The process ended with exit code 7."


def test_an_error_of_a_job_is_that_of_the_whole() -> None:
    with pytest.raises(ImagesError) as caught:
        list(in_processes(square, [5], 1))
    assert (caught.value.problem, caught.value.advice) == ("No images.", "Give some.")


def test_without_jobs_no_process_is_started() -> None:
    assert list(in_processes(square, [], 4)) == []


def linger(number: int, folder: Path) -> int:
    """Say who is there, wait to be stopped, and say so."""
    (folder / f"{number}.began").write_text(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / f"{number}.stopped").touch()
        raise
    return number


def wait_for(*paths: Path) -> None:
    end = time.monotonic() + 120
    while not all(path.exists() and path.stat().st_size for path in paths):
        assert time.monotonic() < end, f"none of {paths}"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_when_the_parent_stops_so_do_the_others(how: signal.Signals, tmp_path: Path) -> None:
    """Whether it can still say so or not; and each is asked once, so that it can keep what it has."""
    code = (
        "from functools import partial; from pathlib import Path; import sys\n"
        "from phard_hub.trials.workers import in_processes; from tests.trials.test_workers import linger\n"
        "if __name__ == '__main__':\n"
        "    list(in_processes(partial(linger, folder=Path(sys.argv[1])), [1, 2, 3], 2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    began = [tmp_path / f"{number}.began" for number in (1, 2)]
    wait_for(*began)
    children = [int(path.read_text()) for path in began]
    parent.send_signal(how)
    parent.communicate(timeout=60)
    end = time.monotonic() + 60
    while not all(gone(pid) for pid in children):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert sorted(path.name for path in tmp_path.glob("*.stopped")) == ["1.stopped", "2.stopped"]
    assert not (tmp_path / "3.began").exists()


def test_leaving_early_stops_the_processes(tmp_path: Path) -> None:
    """Job 0 is done at once; job 1 is in the middle then."""
    results = in_processes(partial(first_or_linger, folder=tmp_path), [1, 0], 2)
    assert next(results) == (0, 0)
    del results
    assert (tmp_path / "1.stopped").exists()


def first_or_linger(number: int, folder: Path) -> int:
    if number == 0:
        wait_for(folder / "1.began")
        return 0
    return linger(number, folder)
