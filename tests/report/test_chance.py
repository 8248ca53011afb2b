"""A model that is no better than guessing is told apart from one that is, and is not hardened by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from phard_hub.cli.console import show_table
from phard_hub.release.card import escape, render_card
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Report
from phard_hub.report.statistics import rate
from tests.command import Phard
from tests.jobs import cheap, files
from tests.report_factory import change_state, make_report


def with_accuracy(before: float, after: float | None = None) -> Report:
    """A report about four classes and 1,000 images."""
    made = make_report()
    assert made.after is not None
    states = [change_state(made.before, accuracy=rate(round(1000 * before), 1000))]
    states += [] if after is None else [change_state(made.after, accuracy=rate(round(1000 * after), 1000))]
    return make_report(before=states[0], after=states[1] if after is not None else None)


@pytest.mark.parametrize(
    ("right", "n", "classes", "expected"),
    [
        (250, 1000, 4, True),
        (276, 1000, 4, True),  # the interval begins at 0.249
        (279, 1000, 4, False),  # at 0.252
        (0, 1000, 4, True),
        (10, 20, 2, True),
        (20, 20, 2, False),
        (1, 1, 2, True),
        (0, 0, 4, False),  # of nothing, nothing is known
        (30, 1000, 1000, False),
        (500, 1000, 0, True),
    ],
)
def test_chance_by_the_interval(right: int, n: int, classes: int, expected: bool) -> None:
    assert rate(right, n).may_be_chance(classes) == expected


def test_each_state_gets_its_warning() -> None:
    assert make_report().warnings == ()
    (alone,) = with_accuracy(0.26).warnings
    assert alone == (
        "The accuracy is no better than guessing one of 4 classes (26.00 % [23.38, 28.81], n = 1000): labels or "
        "preprocessing probably do not match the model."
    )
    (after,) = with_accuracy(0.9, 0.2).warnings
    assert after.startswith("The accuracy after hardening is no better")
    assert len(with_accuracy(0.2, 0.2).warnings) == 2


def test_terminal_card_and_verdict_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    for report, told in ((with_accuracy(0.25), True), (make_report(after=None), False)):
        verdict = gate(report, Policy())
        show_table(report)
        seen = capsys.readouterr()
        assert ("no better than guessing" in seen.err) == told
        assert "guessing" not in seen.out
        card = render_card(report, verdict, model_name="me/it")
        assert all(f"**Warning.** {escape(warning, 500)}\n" in card for warning in report.warnings)
        assert ("**Warning.**" in card) == told == any("guessing" in note for note in verdict.notes)


def test_the_warning_is_red_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show_table(with_accuracy(0.25))
    assert "\x1b[31mWarning: The accuracy" in capsys.readouterr().err


def test_a_model_that_guesses_is_measured_and_not_hardened(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    options = [option for option in cheap(tiny_checkpoint, images, tmp_path / "out") if option != "--even-at-chance"]
    done = phard(*options)
    assert (done.code, done.out, files(tmp_path)) == (3, "", set())
    assert "no better than guessing one of 4 classes" in done.complaint
    assert "--even-at-chance" in done.complaint
    measured = phard("measure", tiny_checkpoint, "--images", images, "--preset", "cheapest")
    assert measured.code == 0
    assert "Warning: The accuracy is no better than guessing" in measured.err
