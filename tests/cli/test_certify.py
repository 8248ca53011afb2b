"""`--certify`: votes under noise in the report, in the policy and on the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from phard_hub.report.limits import OF_VOTES
from phard_hub.report.record import Report
from tests.command import Phard
from tests.jobs import cheap

VOTES = ("--certify", "20", "--sigma", "0.1")


def test_measuring_tells_what_is_certified(tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    out = tmp_path / "report.json"
    measuring = ("measure", tiny_checkpoint, "--images", images, "--preset", "cheapest", "--out", out)
    done = phard(*measuring, *VOTES)
    assert done.code == 0, done.err
    assert "Accuracy of the vote (20 votes, sigma 0.1)" in done.out
    found = Report.read(out)
    assert found.before.smoothed is not None
    assert (found.before.smoothed.votes, found.before.smoothed.sigma) == (20, 0.1)
    assert OF_VOTES in found.limits
    policy = tmp_path / "policy.toml"
    policy.write_text("min_certified_accuracy = { 0.063 = 0.0, 0.25 = 1.0 }\n")
    judged = phard("gate", out, "--policy", policy)
    assert "PASS            min_certified_accuracy" in judged.out
    assert "FAIL            min_certified_accuracy" in judged.out


def test_hardening_ends_with_training_under_noise(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    out = tmp_path / "out"
    done = phard(*cheap(tiny_checkpoint, images, out), *VOTES, "--noise-training")
    assert done.code in (0, 1, 3), done.err
    report = Report.read(out)
    assert report.hardening is not None
    assert report.hardening.phases[-1].defense == "noise-training"
    assert report.hardening.phases[-1].settings["sigma"] == 0.1
    assert report.after is not None
    assert report.after.smoothed is not None
    assert "Certified accuracy (L2 0.25)" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--noise-training",), "Training under noise is for votes. Give --certify with it"),
        (("--certify", "3"), "--certify"),
        (("--certify", "100", "--sigma", "0"), "--sigma"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: tuple[str, ...], said: str, tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    done = phard(*cheap(tiny_checkpoint, images, tmp_path / "out"), *options)
    assert done.code == 2
    assert said in " ".join(done.err.split())
