"""What a job costs is known before it is done, and a budget is kept."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from phard_hub.budget import Budget, Estimate
from phard_hub.errors import InputError, StateError
from phard_hub.planning import cost, fit, plan
from phard_hub.presets import CHEAPEST, DEFAULT, FAST, GATE, PRESETS, Preset
from phard_hub.report.record import Report
from phard_hub.triggers.pace import Pace, timed
from phard_hub.triggers.search import measure
from tests.command import Phard
from tests.jobs import write_images
from tests.small import digit_images, job, trained_digits, unmarked

TEXTS: dict[str, Budget | None] = {
    "90s": Budget(seconds=90),
    "20m": Budget(seconds=1200),
    "1.5h": Budget(seconds=5400),
    "1e6": Budget(gradients=1e6),
    "250000": Budget(gradients=250_000),
    "": None,
    "soon": None,
    "-5m": None,
    "0": None,
    "nan": None,
    "inf": None,
    "m": None,
}


@pytest.mark.parametrize(("text", "budget"), TEXTS.items())
def test_a_budget_is_a_time_or_a_number(text: str, budget: Budget | None) -> None:
    if budget is not None:
        assert Budget.parse(text) == budget
        return
    with pytest.raises(InputError, match="is no budget") as caught:
        Budget.parse(text)
    assert "20m" in caught.value.advice


def test_the_estimate_is_near_the_cost() -> None:
    """Of a real measurement; what is estimated knows the settings only."""
    preset = replace(
        GATE, search=replace(GATE.search, steps=10, batch=4, fit_images=20, choosing_images=10, judging_images=10)
    )
    preset = replace(
        preset, search=replace(preset.search, max_pairs=420, kinds=("warp",)), pgd=replace(preset.pgd, images=0)
    )
    found = measure(trained_digits(4), digit_images(4)[0], preset.search).distances
    seen = found.sample_gradients + found.sample_forwards / 3
    assert cost(preset, 4) == pytest.approx(seen, rel=0.4)


@pytest.mark.parametrize("name", ["fast", "default", "thorough"])
def test_less_is_allowed_and_less_is_done(name: str) -> None:
    preset, least = PRESETS[name], 0.0
    whole = cost(preset, 10, trainings=1)
    assert fit(preset, whole, 10, trainings=1) == (preset, "")
    for share in (0.4, 0.6, 0.9):
        allowed = share * whole
        fitted = fit(preset, allowed, 10, trainings=1)
        spent = cost(fitted.preset, 10, trainings=1)
        assert least <= spent <= allowed
        assert fitted.given_up
        least = spent
    with pytest.raises(InputError, match="the least that says anything costs"):
        fit(preset, 10.0, 10, trainings=1)


def test_a_time_is_spent_on_what_takes_long() -> None:
    """With a small classifier, triggers that networks draw take most of it, although they are few."""
    pace = Pace(bank=1e-3, kinds={"latent": 2e-2, "u-net": 1e-2}, autoencoder=1e-2)
    seconds = cost(FAST, 10, pace=pace)
    without = replace(FAST, search=replace(FAST.search, kinds=()))
    assert seconds > 3 * cost(without, 10, pace=pace)
    assert fit(FAST, seconds, 10, pace=pace) == (FAST, "")
    assert fit(FAST, 0.9 * seconds, 10, pace=pace).given_up
    with pytest.raises(InputError, match=r"allows 0:00:05, and the least that says anything costs 0:\d\d:\d\d"):
        fit(FAST, 5, 10, pace=pace)


def test_pairs_are_given_up_last() -> None:
    hundred = cost(FAST, 100)
    assert "closest 20" in fit(FAST, hundred / 6, 100).given_up
    assert "single kind" not in fit(FAST, hundred / 1.6, 100).given_up


class Computed(TorchDispatchMode):
    """Counts the values that torch computes."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.values += sum(each.numel() for each in tree_leaves(found) if isinstance(each, torch.Tensor))
        return found


def test_a_step_of_each_sort_is_timed_without_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, images = trained_digits(), digit_images(3)[0]
    with unmarked(classifier), Computed() as clock:  # type: ignore[no-untyped-call]
        monkeypatch.setattr(time, "perf_counter", lambda: 1e-9 * clock.values)  # whatever else the machine does
        pace = timed(classifier, images, DEFAULT.search, job())
        monkeypatch.undo()
    assert set(pace.kinds) == set(DEFAULT.search.kinds)
    # Networks that draw take longer than so small a classifier, and a single part less than all.
    assert 0 < pace.of("colour") < pace.bank < min(pace.of("u-net"), pace.of("latent")) < 1
    assert 0 < pace.autoencoder < 1
    gate = timed(classifier, images, GATE.search, job())
    assert (set(gate.kinds), gate.autoencoder) == (set(GATE.search.kinds), 0)
    assert str(Estimate(1_240_400, 1240)) == (
        "about 1,240,000 sample-gradients, 0:20:40 if the machine has nothing else to do"
    )


def test_the_next_try_is_allowed_what_the_first_was(tmp_path: Path) -> None:
    classifier, images = trained_digits(), digit_images(3)[0]
    tried = replace(job(), folder=tmp_path / "run")

    def planned(budget: Budget, preset: Preset = DEFAULT) -> Preset:
        return plan(preset, classifier, images, tried, budget, trainings=1).preset

    half = Budget(gradients=cost(DEFAULT, 3, trainings=1) / 2)
    first = planned(half)
    assert first.search.steps < DEFAULT.search.steps
    assert planned(Budget(gradients=1e12)) == first
    (tmp_path / "run" / "budget").write_text("much")
    with pytest.raises(StateError, match="cannot be read"):
        planned(half)
    assert plan(DEFAULT, classifier, images, job(), Budget(), trainings=1) == (DEFAULT, "")


def test_the_command_says_what_it_costs_and_leaves_out(phard: Phard, tiny_checkpoint: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", per_class=24)
    out = tmp_path / "report.json"
    options = ("--images", images, "--preset", "cheapest", "--out", out)
    a_third = cost(replace(CHEAPEST, search=replace(CHEAPEST.search, steps=3)), 4)
    done = phard("measure", tiny_checkpoint, *options, "--budget", f"{a_third:.0f}")
    assert done.code == 0, done.err
    assert "This costs about" in done.err
    assert "The budget leaves out 65 % of all steps" in done.err
    assert any("The budget left out 65 % of all steps" in limit for limit in Report.read(out).limits)
    refused = phard("measure", tiny_checkpoint, *options, "--budget", "5")
    assert refused.code == 2
    assert "the least that says anything" in refused.complaint
    assert "is no budget" in phard("measure", tiny_checkpoint, *options, "--budget", "tomorrow").complaint
