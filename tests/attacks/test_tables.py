"""How trials are counted in the tables of attacks."""

from __future__ import annotations

from math import nan

import pytest

from tests.benchmarks.attacks.outcomes import Left, Measure

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
