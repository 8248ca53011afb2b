"""The process that looks at a model: what it finds comes back, and what it does stays there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phard_hub.auditing.limits import Limits, within
from phard_hub.report.findings import note, warning
from phard_hub.report.record import Finding

SMALL = Limits(seconds=1, memory=2**28)
FIRST = note("PH-A27", "config.json", "something", "")


def found(look: Callable[[], Iterator[Finding]], limits: Limits = SMALL) -> list[str]:
    return [finding.id for finding in within(limits, look, "org/model")]


def test_findings_come_back_in_their_order() -> None:
    many = [FIRST, *(warning("PH-A02", str(number), "é\ud800" * 100, "x" * 150) for number in range(3000))]
    assert within(SMALL, lambda: iter(many), "org/model") == tuple(many)


def test_nothing_else_of_it_is_seen_outside(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    seen: list[int] = []

    def look() -> Iterator[Finding]:
        seen.append(1)
        os.chdir(tmp_path)
        sys.stdout.write("loud")
        os.write(2, b"louder")
        yield FIRST

    place = Path.cwd()
    assert found(look) == ["PH-A27"]
    assert (seen, Path.cwd(), capfd.readouterr()) == ([], place, ("", ""))


def forever() -> None:
    while True:
        pass


def all_memory() -> None:
    blocks = []
    while True:
        blocks.append(bytearray(2**20))


@pytest.mark.parametrize("what", [forever, all_memory, os.abort, lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_limit_is_a_finding_that_refuses_and_what_was_found_before_is_kept(what: Callable[[], None]) -> None:
    def look() -> Iterator[Finding]:
        yield FIRST
        what()

    started = time.monotonic()
    result = within(SMALL, look, "org/model")
    assert [finding.id for finding in result] == ["PH-A27", "PH-A33"]
    assert (result[1].severity, result[1].file) == ("error", "org/model")
    assert time.monotonic() - started < 10


def test_a_process_that_sleeps_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phard_hub.auditing.limits._PATIENCE", 0.5)

    def look() -> Iterator[Finding]:
        time.sleep(60)
        yield FIRST

    assert found(look) == ["PH-A33"]


def connect() -> None:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", 9))


@pytest.mark.parametrize(
    "reach",
    [connect, lambda: socket.getaddrinfo("localhost", 80), lambda: subprocess.run(["true"], check=True), os.fork],
)
@pytest.mark.parametrize("hides", [False, True])
def test_the_network_and_programs_are_closed(reach: Callable[[], object], *, hides: bool) -> None:
    """Also where a library catches the error."""

    def look() -> Iterator[Finding]:
        try:
            reach()
        except PermissionError:
            if not hides:
                raise
        yield FIRST

    assert found(look) == (["PH-A27", "PH-A34"] if hides else ["PH-A33"])


def children() -> list[str]:
    """The processes that this one started."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_no_process_is_left_behind() -> None:
    before = children()
    found(lambda: iter([FIRST]))
    assert children() == before


COMPUTES = """
import torch
from phard_hub.auditing.limits import Limits, within
from phard_hub.report.findings import note

def compute():
    torch.nn.functional.conv2d(torch.randn(32, 16, 64, 64), torch.randn(16, 16, 3, 3)).relu().sum()

def look():
    compute()
    yield note("PH-A27", "config.json", "e", "a")

torch.set_num_threads(4)
compute()
print([found.id for found in within(Limits(seconds=20, memory=2**30), look, "x")])
"""


def test_it_computes_in_a_process_whose_threads_have_computed() -> None:
    """A fork has no threads but one, and OpenMP waited for the others until the time was over."""
    done = subprocess.run([sys.executable, "-c", COMPUTES], capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout.strip() == "['PH-A27']", done.stderr
