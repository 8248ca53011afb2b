"""From what judging images saw of triggers to distances with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from phard_hub.report.distances import PairDistance, grey_levels
from phard_hub.report.statistics import rate
from phard_hub.triggers.fitting import Task
from phard_hub.triggers.judging import STRONGEST, Judged, wanted_of
from phard_hub.triggers.pool import UNIVERSAL

_DRAWS = 1000
SPREAD = 0.09
"""By how much the logarithm of a distance differs between searches that differ in what they draw, standard deviation.

Seen between two searches of 90 pairs on a CIFAR-10 ResNet-20, of the preset `fast`.
"""

Floats = npt.NDArray[np.float64]


class Entry(NamedTuple):
    """A trigger, and what was seen of it."""

    source: int
    target: int
    kind: str
    judged: Judged


def entries(task: Task, judged: Sequence[Judged]) -> Iterator[Entry]:
    """What was seen of each trigger of a task."""
    directions = zip(task.directions.source.tolist(), task.directions.target.tolist(), strict=True)
    for (source, target), kind, each in zip(directions, task.kinds, judged, strict=True):
        yield Entry(source, target, kind, each)


def distances_of(found: Sequence[Entry], success: float, shape: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """Pairs, universal triggers, those of a single kind, and the mean over the pairs, as fields of `ClassDistances`.

    Args:
        found: all triggers.
        success: share of the images that a trigger has to turn.
        shape: of the images, (C, H, W).
        seed: of the bootstrap.
    """
    pairs, universal, means = [], [], []
    kinds: dict[str, list[PairDistance]] = {}
    for entry in found:
        drawn = _drawn_again(entry, success, seed) if entry.judged.reached else None
        distance = _distance(entry, drawn, shape)
        if entry.kind:
            kinds.setdefault(entry.kind, []).append(distance)
        elif entry.source == UNIVERSAL:
            universal.append(distance)
        else:
            pairs.append(distance)
            means += [] if drawn is None else [drawn]
    reached = [pair.distance for pair in pairs if pair.distance is not None]
    low, high = _interval(np.mean(means, axis=0)) if means else (None, None)
    mean = float(np.mean(reached)) if reached else None
    if mean is not None and low is not None and high is not None:
        low, high = min(low, mean), max(high, mean)  # a mean of quantiles lies beside the quantile of means
    return {
        "pairs": tuple(pairs),
        "universal": tuple(universal),
        "kinds": {kind: tuple(each) for kind, each in kinds.items()},
        "mean": mean,
        "low": low,
        "high": high,
    }


def _distance(entry: Entry, drawn: Floats | None, shape: tuple[int, int, int]) -> PairDistance:
    judged = entry.judged
    distance = None if drawn is None else float(judged.sizes.double().mean())
    low, high = (None, None) if drawn is None or distance is None else _interval(drawn)
    return PairDistance(
        source=None if entry.source == UNIVERSAL else entry.source,
        target=entry.target,
        reached=judged.reached,
        distance=distance,
        low=None if low is None or distance is None else min(low, distance),
        high=None if high is None or distance is None else max(high, distance),
        rms=None if distance is None else grey_levels(distance, shape),
        success=rate(int(judged.hits.sum()), len(judged.hits)),
        at=tuple(rate(count, len(judged.hits)) for count in judged.at),
    )


def _drawn_again(entry: Entry, success: float, seed: int) -> Floats:
    """The distance if other images had judged and another search had found the trigger: ``(draws,)``.

    The images are drawn again, those of one source class alike for all its pairs, and with them the strength at which
    enough of them turn. A change grows with its strength about in proportion. Searches of different pairs are off
    independently of each other.
    """
    needed = entry.judged.needed.double().numpy().clip(max=STRONGEST)
    sizes = entry.judged.sizes.double().numpy()
    random = np.random.default_rng([seed, entry.source + 1])
    picks = random.integers(len(needed), size=(_DRAWS, len(needed)))
    wanted = wanted_of(len(needed), success)
    strengths = np.partition(needed[picks], wanted - 1, axis=1)[:, wanted - 1]
    search = np.random.default_rng([seed, entry.source + 1, entry.target]).normal(0, SPREAD, _DRAWS)
    return np.asarray(sizes[picks].mean(1) * strengths * np.exp(search))


def _interval(drawn: Floats) -> tuple[float, float]:
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))
