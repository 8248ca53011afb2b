"""How trials are counted in the tables of attacks."""

from __future__ import annotations

from datetime import UTC, datetime
from math import nan

import pytest

from phard_hub.report.trial import Cell, Judgement, Trial
from tests.benchmarks.attacks.outcomes import Left, Measure
from tests.benchmarks.attacks.rivals import hardened, head
from tests.report_factory import UNREACHED, make_distances, make_hardening, make_state

SUCCESS = Measure("success left", lambda left: left.success, max)


def left(success: float) -> Left:
    """Of a defense that leaves so much, and of which nothing else is known."""
    return Left._make([nan] * len(Left._fields))._replace(success=success)


def test_each_attack_counts_once_however_many_seeds_it_has() -> None:
    lefts = {"sig": [left(0.02), left(0.04)], "blend": [left(0.01)]}
    assert SUCCESS.over(lefts) == "2.0, worst 4.0"


def test_the_interval_over_attacks_is_students() -> None:
    lefts = {str(place): [left(place / 100)] for place in range(5)}
    half = 2.776445 * 2.5**0.5 / 5**0.5  # quantile for four degrees of freedom, deviation of 0 to 4, five of them
    assert SUCCESS.over(lefts) == f"2.0 ± {half:.1f}, worst 4.0"


@pytest.mark.parametrize("lefts", [{"sig": [left(nan)]}, {"sig": [left(0.1)], "blend": [left(0.1), left(nan)]}])
def test_what_was_not_measured_everywhere_has_no_mean(lefts: dict[str, list[Left]]) -> None:
    assert SUCCESS.over(lefts) == "-"


def trial(defense: str, scale: float) -> Trial:
    """Of an honest model whose distances a defense multiplies; one pair is never reached."""
    before, after = (
        make_state(accuracy, 0.3, 0.0, make_distances(times, unreached=UNREACHED), "a" * 64)
        for accuracy, times in ((0.92, 1.0), (0.91, scale))
    )
    judged = [Judgement(evaluation=each.evaluation, distances=each.distances) for each in (before, after)]
    return Trial(
        schema_version=3,
        cell=Cell(model="m", attack="none", defense=defense, data_share=1, seed=0),
        config={},
        status="done",
        before=judged[0],
        after=judged[defense != "none"],
        hardening=None if defense == "none" else make_hardening(),
        created=datetime(2026, 11, 28, tzinfo=UTC),
        commit=None,
        environment=None,
        seconds={"hardening": 120.0},
    )


def test_defenses_stand_beside_the_model_as_it_is() -> None:
    rows = hardened([trial("uat", 1.5), trial("none", 1.0), trial("pervasive", 2.0)])
    assert [row[0] for row in rows] == ["none", "pervasive", "uat"]
    as_it_is, ours, other = (dict(zip(head(), row, strict=True)) for row in rows)
    assert (as_it_is["accuracy"], as_it_is["pairs"], as_it_is["minutes"]) == ("92.00", "", "")
    assert (ours["accuracy"], ours["pairs"], ours["to one class"]) == ("91.00", "+100 (11 of 12)", "+100")
    assert (other["colour"], other["warp"]) == ("+50", "out of reach")
    assert (ours["PGD 2/255"], ours["PGD 8/255"]) == ("30.0", "")
    assert (ours["sample-gradients"], ours["minutes"], ours["success at 20"]) == ("250,000", "2", "90.0")
