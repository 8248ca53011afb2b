"""Doubt beside every number: intervals for rates and for means."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from phard_hub.report.checks import wilson
from phard_hub.report.distances import Rate


def rate(successes: int, n: int) -> Rate:
    """A share with its 95 % Wilson interval; of nothing, nothing is known (0 within [0, 1])."""
    value = successes / n if n else 0.0
    low, high = wilson(value, n)
    return Rate(value=value, n=n, low=low, high=high)


def drop(before: Rate, after: Rate) -> tuple[float, float, float]:
    """How much a rate fell, with a 95 % interval: ``(value, low, high)``.

    Newcombe's hybrid of the two Wilson intervals (Statistics in Medicine 17, 1998, method 10), which takes the
    rates for independent. Two models judged on the same images mostly agree, and then it is wider than it need be.
    """
    value = before.value - after.value
    low = value - math.hypot(before.value - before.low, after.high - after.value)
    high = value + math.hypot(before.high - before.value, after.value - after.low)
    return value, low, high


def bootstrap_mean(groups: dict[int, npt.NDArray[np.float64]], *, seed: int, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of a mean over pairs that share images.

    Args:
        groups: for each source class, sizes ``(pairs, images)``: its pairs saw the same images, so the
            images are drawn again together, class by class.
        seed: of the draws.
        draws: bootstrap samples.
    """
    random = np.random.default_rng(seed)
    totals = np.zeros(draws)
    for sizes in groups.values():
        picks = random.integers(sizes.shape[1], size=(draws, sizes.shape[1]))
        totals += sizes[:, picks].mean(2).sum(0)
    means = totals / sum(len(sizes) for sizes in groups.values())
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
