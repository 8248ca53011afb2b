"""Intervals, against their formulas in slow Python and against what an interval promises."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from phard_hub.report.statistics import bootstrap_mean, drop, rate

Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The two shares p with ``|successes / n - p| = z sqrt(p (1 - p) / n)``."""
    share = successes / n
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 10), (450, 500), (1, 10_000)])
def test_rate_against_the_formula_of_wilson(successes: int, n: int) -> None:
    result = rate(successes, n)
    assert (result.value, result.n) == (successes / n, n)
    assert (result.low, result.high) == pytest.approx(wilson(successes, n), abs=1e-9)
    assert 0 <= result.low <= result.value <= result.high <= 1


def test_of_nothing_nothing_is_known() -> None:
    result = rate(0, 0)
    assert (result.value, result.n, result.low, result.high) == (0.0, 0, 0.0, 1.0)


def test_the_drop_of_a_rate_against_the_example_of_newcombe() -> None:
    """56 of 70 and 48 of 80, table II, method 10."""
    value, low, high = drop(rate(56, 70), rate(48, 80))
    assert value == pytest.approx(0.2)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_rise_is_a_negative_drop() -> None:
    fell, rose = drop(rate(30, 100), rate(10, 50)), drop(rate(10, 50), rate(30, 100))
    assert rose == pytest.approx((-fell[0], -fell[2], -fell[1]))
    assert drop(rate(5, 5), rate(5, 5))[0] == 0


def test_more_images_make_a_rate_more_certain() -> None:
    widths = [rate(n // 5, n).high - rate(n // 5, n).low for n in (10, 100, 1000)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def quantile(values: list[float], share: float) -> float:
    """Linear between the two nearest."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    return ordered[below] + (place - below) * (ordered[min(below + 1, len(ordered) - 1)] - ordered[below])


def slow_bootstrap(groups: dict[int, npt.NDArray[np.float64]], seed: int, draws: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    picks = {k: random.integers(sizes.shape[1], size=(draws, sizes.shape[1])) for k, sizes in groups.items()}
    means = []
    for draw in range(draws):
        pair_means = []
        for k, sizes in groups.items():
            for pair in sizes:
                drawn = [pair[image] for image in picks[k][draw]]
                pair_means.append(sum(drawn) / len(drawn))
        means.append(sum(pair_means) / len(pair_means))
    return quantile(means, 0.025), quantile(means, 0.975)


def random_groups(seed: int, shapes: list[tuple[int, int]]) -> dict[int, npt.NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return {k: random.gamma(2.0, 1.0, size=shape) for k, shape in enumerate(shapes)}


@pytest.mark.parametrize("shapes", [[(1, 5)], [(3, 8), (1, 4), (2, 20)]], ids=str)
def test_bootstrap_against_slow_loops(shapes: list[tuple[int, int]]) -> None:
    groups = random_groups(1, shapes)
    assert bootstrap_mean(groups, seed=3, draws=60) == pytest.approx(slow_bootstrap(groups, 3, 60), abs=1e-12)


def test_bootstrap_depends_on_the_seed_alone() -> None:
    groups = random_groups(1, [(2, 10)])
    assert bootstrap_mean(groups, seed=1) == bootstrap_mean(groups, seed=1)
    assert bootstrap_mean(groups, seed=1) != bootstrap_mean(groups, seed=2)


def test_bootstrap_of_equal_sizes_is_a_point() -> None:
    assert bootstrap_mean({0: np.full((2, 6), 1.5), 4: np.full((1, 3), 1.5)}, seed=0) == pytest.approx((1.5, 1.5))


def test_images_are_drawn_together_for_all_pairs_of_a_class() -> None:
    """Two pairs with opposite errors on the same images have a mean that is certain; two classes have not."""
    sizes = np.random.default_rng(0).normal(size=40)
    low, high = bootstrap_mean({0: np.stack([sizes, 1 - sizes])}, seed=0)
    assert (low, high) == pytest.approx((0.5, 0.5))
    low, high = bootstrap_mean({0: sizes[None], 1: 1 - sizes[None]}, seed=0)
    assert high - low > 0.1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        groups = {k: 1 + random.normal(size=(2, 40)) for k in range(3)}
        low, high = bootstrap_mean(groups, seed=trial, draws=300)
        covered += low <= 1 <= high
    assert 0.90 <= covered / 300 <= 0.98
