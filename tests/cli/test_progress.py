"""Progress on stderr: bars on a terminal, and lines now and then in a log, which stayed empty until the end."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from phard_hub.cli.progress import _bars, show_progress


def lines(steps: Iterable[tuple[float, str, int, int]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is written of steps at these times."""
    with pytest.MonkeyPatch.context() as patch, show_progress() as progress:
        for now, what, done, total in steps:
            patch.setattr("phard_hub.cli.progress.time.monotonic", lambda now=now: now)
            progress(what, done, total)
    seen = capsys.readouterr()
    assert seen.out == ""
    return seen.err.splitlines()


def test_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [(float(step), "hardening", step, 1000) for step in range(26)]
    assert lines(steps, capsys) == [
        "hardening: 0 of 1000",
        "hardening: 10 of 1000, 0:16:30 left",
        "hardening: 20 of 1000, 0:16:20 left",
    ]


def test_a_line_every_five_percent(capsys: pytest.CaptureFixture[str]) -> None:
    seen = lines([(0.5 * step, "hardening", step, 100) for step in range(101)], capsys)
    assert seen[:3] == [
        "hardening: 0 of 100",
        "hardening: 5 of 100, 0:00:48 left",
        "hardening: 10 of 100, 0:00:45 left",
    ]
    assert len(seen) == 21


def test_what_takes_a_moment_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [(0.001 * step, "evaluating", step, 100) for step in range(101)]
    assert lines([*steps, (0.2, "evaluating", 100, 100)], capsys) == ["evaluating: 0 of 100", "evaluating: 100 of 100"]


def test_a_slow_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [(0.0, "planting", 3, 1000), (60.0, "planting", 4, 1000), (120.0, "planting", 4, 1000)]
    assert lines(steps, capsys) == ["planting: 3 of 1000", "planting: 4 of 1000, 16:36:00 left"]


def test_what_is_done_twice_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    clock = itertools.count()
    steps = [(float(next(clock)), "evaluating", done, 2) for done in (0, 1, 2, 0, 1, 2)]
    expected = ["evaluating: 0 of 2", "evaluating: 1 of 2, 0:00:01 left", "evaluating: 2 of 2"]
    assert lines(steps, capsys) == expected * 2


def test_only_the_first_process_talks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    assert lines([(0.0, "hardening", 0, 1)], capsys) == []


def test_on_a_terminal_there_are_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with show_progress() as progress:
        progress("hardening", 1, 2)
    assert "━" in capsys.readouterr().err


def test_a_bar_is_shown_once_for_each_time_that_something_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with _bars() as progress:
        for done in (0, 1, 2, 2, 0, 2):  # finished twice over, then done again
            progress("evaluating", done, 2)
    assert capsys.readouterr().err.count("evaluating") == 2
