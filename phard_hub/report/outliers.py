"""Classes that stand out: those that universal triggers reach with far smaller changes than the others.

A planted backdoor is a short way to its target. Honest classes differ in how far they are, too, so a class that stands
out is a reason to look closer, and none that does is no proof that nothing was planted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from phard_hub.report.distances import GREY_LEVELS, ClassDistances, PairDistance

LEAST_CLASSES = 4
"""Below that many, there are no others that a class could stand out from."""
LEAST_IMAGES = 50
"""Judging images below which a distance says too little."""
LARGEST = 20.0
"""Grey levels up to which a class is looked at: honest classes differ a lot in what only large changes reach."""
_LEAST_LEVELS = 0.1  # a class that needs no change at all is infinitely easy to reach, which is no number


class Outlier(NamedTuple):
    """How much easier a class is to reach than the others, by universal triggers of one kind.

    Attributes:
        kind: of the triggers, ``""`` for those of all parts.
        target: number of the class.
        levels: what it needs, in grey levels (0-255) RMS.
        others: the median of what the others need; those that were not reached count as the largest size tried.
        times: how many times smaller the former is.
        least: the same at the end of the 95 % interval that makes least of it.
        images: that judged the class.
    """

    kind: str
    target: int
    levels: float
    others: float
    times: float
    least: float
    images: int


def outliers(found: ClassDistances) -> tuple[Outlier, ...]:
    """How much each class stands out that changes of up to `LARGEST` reach, by each kind; the most outlying first.

    The comparison is with the median of the other classes, so that several targets, as long as they are fewer than
    half, do not hide each other.
    """
    kinds: dict[str, Sequence[PairDistance]] = {"": found.universal, **found.kinds}
    every = [each for kind, triggers in kinds.items() for each in _outliers(kind, triggers, found.rms_per_l2)]
    return tuple(sorted(every, key=lambda each: -each.times))


def _outliers(kind: str, triggers: Sequence[PairDistance], unit: float) -> Iterator[Outlier]:
    if len(triggers) < LEAST_CLASSES:
        return
    largest = max([GREY_LEVELS[-1], *(trigger.rms for trigger in triggers if trigger.rms is not None)])
    levels = [largest if trigger.rms is None else trigger.rms for trigger in triggers]
    lows = [largest if trigger.low is None else trigger.low * unit for trigger in triggers]
    for number, trigger in enumerate(triggers):
        if trigger.rms is None or trigger.high is None or trigger.rms > LARGEST:
            continue
        others = median(levels[:number] + levels[number + 1 :])
        least = median(lows[:number] + lows[number + 1 :]) / max(trigger.high * unit, _LEAST_LEVELS)
        times = others / max(trigger.rms, _LEAST_LEVELS)
        yield Outlier(kind, trigger.target, trigger.rms, others, times, min(least, times), trigger.success.n)
