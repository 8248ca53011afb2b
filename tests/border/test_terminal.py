"""What strangers named does not speak to the terminal, and is no markup that ends a run of hours in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from phard_hub.cli.console import show_audit, show_outcome, show_table, show_verdict
from phard_hub.cli.progress import _bars, _lines
from phard_hub.job import Progress
from phard_hub.pipeline import Outcome
from phard_hub.release.card import render_card
from phard_hub.report.findings import AuditRecord
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Finding, Report
from tests.report_factory import make_report

TITLE, CLEAR, MARKUP, NEXT_LINE = "\x1b]0;owned\x07", "\x1b[2J", "[/red][bold", "\x85\u2028\u202e"
HOSTILE = f"{MARKUP}{TITLE}{CLEAR}{NEXT_LINE}"


def seen(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in text)


def hostile_report() -> Report:
    """A report whose names are all hostile."""
    report = make_report()
    distances = report.before.distances
    labels = tuple(f"{label}{HOSTILE}" for label in distances.labels)
    before = report.before.model_copy(update={"distances": distances.model_copy(update={"labels": labels})})
    source = report.source.model_copy(update={"repo": HOSTILE})
    return report.model_copy(update={"source": source, "dataset": HOSTILE, "before": before, "after": None})


def test_reports_and_verdicts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = hostile_report()
    verdict = gate(report, Policy())
    show_table(report)
    show_verdict(f"after {HOSTILE}", verdict)
    show_outcome(Outcome(release=tmp_path / HOSTILE, report=report, verdict_before=verdict, verdict=verdict))
    out = capsys.readouterr().out
    assert seen(out)
    assert MARKUP in out


def test_findings_of_an_audit(capsys: pytest.CaptureFixture[str]) -> None:
    """The column of advice wrote another title for the window."""
    finding = Finding(id="PH-A01", severity="error", file=HOSTILE, evidence=HOSTILE, advice=HOSTILE)
    show_audit(AuditRecord(repo=HOSTILE, commit=None, upstream=HOSTILE, files={}, findings=(finding,)), Policy())
    out = capsys.readouterr().out
    assert seen(out)
    assert "[/red]" in out


@pytest.mark.parametrize("show", [_bars, _lines])
def test_progress(show: Callable[[], AbstractContextManager[Progress]], capsys: pytest.CaptureFixture[str]) -> None:
    """A class called ``[/red]`` ended a run in a traceback."""
    with show() as progress:
        progress(f"planting {HOSTILE}", 0, 2)
        progress(f"planting {HOSTILE}", 2, 2)
    err = capsys.readouterr().err
    assert "planting [/red]" in err
    assert TITLE not in err
    assert CLEAR not in err


def test_the_card_of_a_model_with_a_hostile_card() -> None:
    report = make_report()
    card = render_card(report, gate(report, Policy()), model_name="me/it", base_card=f"# {HOSTILE}\n\ntext\n")
    assert TITLE not in card
    assert CLEAR not in card


COMMANDS: list[list[str]] = [
    ["gate", HOSTILE],
    ["card", HOSTILE],
    ["audit", HOSTILE],
    ["measure", HOSTILE, "--images", HOSTILE],
    ["push", HOSTILE, HOSTILE],
    ["plant", HOSTILE, "--images", "x", "--attack", HOSTILE, "--out", "y"],
    ["compare", HOSTILE, "--out", HOSTILE],
    ["gate", "x", "--policy", HOSTILE],
    ["harden", ".", "--images", "x", "--backdoor", HOSTILE],
    [HOSTILE],
    ["gate", f"--{HOSTILE}"],
    ["gate", "x", "--format", HOSTILE],
    ["measure", "x", "--images", "y", "--seed", "9" * 30],
    ["measure", "x", "--images", "y", "--seed", "0x10"],
    ["measure", "x", "--images", "y", "--max-images", "1e999"],
    ["measure", "x", "--images", "y", "--max-images", "9" * 5000],
    ["plant", "x", "--images", "y", "--attack", "sig", "--out", "z", "--poison-rate", "nan"],
    ["gate", os.fsdecode(b"\xff\xfe.json")],
    ["audit", os.fsdecode(b"folder\xff")],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0][:12])
def test_errors_of_the_command(arguments: list[str], tmp_path: Path) -> None:
    """One line, and the code of wrong use; whatever was typed or pasted."""
    done = subprocess.run(
        [sys.executable, "-m", "phard_hub", *arguments],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode()
    assert done.returncode in (2, 3), said
    assert seen(said), repr(said)
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
