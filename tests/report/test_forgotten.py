"""Whoever hardened a model is told where nothing in it was forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import Accelerator

from phard_hub.cli.console import show_outcome
from phard_hub.hub.snapshot import Audit, Snapshot
from phard_hub.images.data import Data
from phard_hub.pipeline import Outcome, describe
from phard_hub.release.card import escape, render_card
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.wording import NOT_FORGOTTEN
from tests.report_factory import make_hardening, make_report
from tests.small import digit_images


@pytest.mark.parametrize(("forgotten", "told"), [(False, True), (True, False), (None, False)])
def test_the_card_and_the_terminal_say_so(
    forgotten: bool | None, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, made = digit_images(3)[0], make_report()
    report = describe(
        Audit(Snapshot(folder=tmp_path, repo="someone/resnet-tiny", commit=None, files={}, license=None), ()),
        Data(images, images, images, "digits"),
        Accelerator(cpu=True),
        before=made.before,
        after=made.after,
        hardening=make_hardening(forgotten=forgotten),
    )
    verdict = gate(report, Policy())
    show_outcome(Outcome(release=tmp_path, report=report, verdict_before=verdict, verdict=verdict))
    assert (NOT_FORGOTTEN in capsys.readouterr().out) == told
    assert (escape(NOT_FORGOTTEN, 2000) in render_card(report, verdict, model_name="me/resnet-tiny")) == told
