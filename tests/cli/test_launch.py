"""Several processes for one verb: the same results, the same exit codes, and an end where one of them dies."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from phard_hub.report.record import Report
from tests.benchmarks.architectures.table import write_model
from tests.command import Phard, hear_interrupts
from tests.jobs import LABELS, cheap, write_images


def start(*arguments: object, before: Callable[[], None] = hear_interrupts) -> subprocess.Popen[str]:
    """Begin in a session of its own, as in a terminal."""
    command = [sys.executable, "-m", "phard_hub", "launch", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before, start_new_session=True
    )


def ended(*arguments: object) -> tuple[int, str]:
    process = start(*arguments)
    _, err = process.communicate(timeout=240)
    assert "Traceback" not in err
    return process.returncode, err


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", per_class=24)


def test_two_processes_measure_what_one_does(tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    reports = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        measuring = ("measure", tiny_checkpoint, "--images", images, "--preset", "cheapest", "--out", out)
        code, err = ended(2, *measuring) if processes == 2 else phard(*measuring)[::2]
        assert code == 0, err
        assert err.count("This costs") == 1
        reports.append(Report.read(out))
    one, two = (report.before.distances.model_dump(exclude={"seconds"}) for report in reports)
    assert one == two
    assert reports[0].before.evaluation == reports[1].before.evaluation
    assert [report.environment.processes for report in reports] == [1, 2]


def test_two_processes_harden_as_one_does(images: Path, tmp_path: Path, phard: Phard) -> None:
    """DINOv2 has a parameter without a gradient, for which processes waited; 76 images are no even batches."""
    start = tmp_path / "dinov2"
    write_model("DINOv2", LABELS, start)
    out = [tmp_path / "1", tmp_path / "2"]
    assert phard(*cheap(start, images, out[0])).code == 3  # a model that knows nothing reaches no verdict
    code, err = ended(2, *cheap(start, images, out[1]))
    assert code == 3, err
    one, two = (Report.read(folder) for folder in out)
    assert (one.environment.processes, two.environment.processes) == (1, 2)
    assert 1e8 < (two.environment.peak_memory or 0) < 1e11
    distances = [report.before.distances.model_dump(exclude={"seconds"}) for report in (one, two)]
    assert distances[0] == distances[1]
    assert one.before.evaluation == two.before.evaluation
    assert one.after is not None
    assert two.after is not None
    assert one.after.evaluation.accuracy == two.after.evaluation.accuracy
    # A part of a batch is rounded otherwise than the whole.
    tolerance = 1e-5 if one.environment.precision == "fp32" else 1e-3
    before, first, second = (load_file(folder / "model.safetensors") for folder in (start, *out))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=tolerance)
    assert max(float((before[name] - value).abs().max()) for name, value in first.items()) > 0.05


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((2, "measure", "none/", "--images", "none"), 2, "is neither an existing folder nor a Hub id"),
        ((2, "harden", ".", "--nonsense"), 2, "No such option"),
        ((2, "gate", "x"), 2, "gate is done by one process"),
        ((0, "measure", "x"), 2, "Input should be greater"),
    ],
)
def test_the_codes_are_those_of_one_process(arguments: tuple[object, ...], code: int, words: str) -> None:
    found, err = ended(*arguments)
    assert found == code, err
    assert words in err
    assert err.count("phard: ") == 1


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in listed]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_dies_the_others_end(rank: int, tiny_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(2, *cheap(tiny_checkpoint, images, out))
    try:
        wait_for("searching triggers", process)  # the first long part of measuring
        os.kill(children(process)[rank], signal.SIGKILL)
        killed = time.monotonic()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - killed < 15
    assert process.returncode == 3, err
    assert f"Process {rank} of 2 was ended by SIGKILL" in err
    assert err.count("phard: ") == 1
    assert "Traceback" not in err
    assert not out.exists()


def wait_for(words: str, process: subprocess.Popen[str]) -> None:
    """Until it has said that."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended and did not say {words!r}")


def test_ctrl_c_at_a_terminal_is_heard_once_by_each(tiny_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """The launcher's children were in its group: they heard it twice, and left without keeping anything."""
    options = ("--images", images, "--attack", "blend", "--target", "cat", "--steps", 10_000, "--out", tmp_path / "out")
    process = start(2, "plant", tiny_checkpoint, *options)
    try:
        wait_for("planting", process)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("phard: Stopped at step ")
    assert err.count("phard: ") == 1


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found in /proc")
def test_ctrl_c_that_reaches_the_first_later_stops_all(tiny_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """They waited for each other for ever."""
    process = start(2, "measure", tiny_checkpoint, "--images", images, "--preset", "fast", "--out", tmp_path / "out")
    try:
        wait_for("training autoencoder", process)  # the first long part
        both = children(process)
        os.kill(both[1], signal.SIGINT)
        time.sleep(0.4)
        os.kill(both[0], signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("phard: Interrupted")
    assert err.count("phard: ") == 1


def test_a_full_disk_ends_all_with_one_line(tiny_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """A limit of the size of files is told as a full disk is; the first process alone writes the state."""

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))

    process = start(2, *cheap(tiny_checkpoint, images, tmp_path / "out"), before=little_room)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("phard: Cannot write ")
    assert err.count("phard: ") == 1
    assert not (tmp_path / "out").exists()
