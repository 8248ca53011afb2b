"""What trials say of their backdoors: when planted, when defended against, and over many of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple, TypeVar

from scipy import stats

from phard_hub.report.distances import both_reached, mean_increase
from phard_hub.report.trial import Judgement, Trial

PATCHES = ("badnets", "trojan-watermark")
"""Attacks that are no pervasive ones, for comparison."""
FEWEST_FOR_AN_INTERVAL = 5
"""Attacks; over fewer of them Student's interval is wider than any rate."""

Key = TypeVar("Key", bound=Hashable)


def read(folder: Path) -> list[Trial]:
    """All trials of a comparison, in the order of their triggers' size."""
    trials = [Trial.read(path) for path in sorted((folder / "cells").glob("*.json"))]
    sizes = {
        attack: fmean(trial.size.rms if trial.size else 0.0 for trial in same)
        for attack, same in grouped(trials, lambda trial: trial.cell.attack).items()
    }

    def place(trial: Trial) -> tuple[float, str, float, str, int]:
        cell = trial.cell
        return sizes[cell.attack], cell.attack, -cell.data_share, cell.defense, cell.seed

    return sorted(trials, key=place)


def grouped(trials: Sequence[Trial], key: Callable[[Trial], Key]) -> dict[Key, list[Trial]]:
    """Trials by what they have in common, in their order."""
    groups: dict[Key, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key(trial), []).append(trial)
    return groups


class Planted(NamedTuple):
    """A planted model: its trigger's size, what it does and what it cost, and the place of its target in the search."""

    rms: float
    ssim: float
    accuracy: float
    gain: float
    success: float
    success_honest: float
    rank: float

    @classmethod
    def of(cls, trial: Trial) -> Planted | None:
        """Of one trial; None where nothing was planted."""
        if trial.size is None or trial.original is None or trial.before is None:
            return None
        before, honest = trial.before.evaluation, trial.original.evaluation
        return cls(
            rms=trial.size.rms,
            ssim=trial.size.ssim,
            accuracy=before.accuracy.value,
            gain=before.accuracy.value - honest.accuracy.value,
            success=before.attacks[0].success.value,
            success_honest=honest.attacks[0].success.value,
            rank=trial.before.target_rank(trial.target or 0) or nan,
        )


class Left(NamedTuple):
    """What a defense leaves of a backdoor, and what it costs, as shares; NaN where it was not measured.

    Beside each rate stands what the same trigger does to the honest model, which never had the backdoor.
    """

    accuracy: float
    gain: float
    """Against the planted model."""
    lost: float
    """Of accuracy, against the honest model."""
    planted: float
    """The success before."""
    success: float
    success_honest: float
    recovered: float
    recovered_honest: float
    woken: float
    woken_honest: float
    moved: float
    moved_honest: float
    larger: float
    """The mean increase of the universal distances."""

    @classmethod
    def of(cls, trial: Trial) -> Left | None:
        """Of one trial; None where no backdoor was defended against."""
        original, before, after = trial.original, trial.before, trial.after
        if trial.hardening is None or original is None or before is None or after is None or trial.outcome is None:
            return None
        larger = None
        if before.distances and after.distances:
            larger = mean_increase(both_reached(before.distances.universal, after.distances.universal))
        accuracy, honest, left = after.evaluation.accuracy.value, original.evaluation, after.evaluation.attacks[0]
        return cls(
            accuracy=accuracy,
            gain=accuracy - before.evaluation.accuracy.value,
            lost=honest.accuracy.value - accuracy,
            planted=before.evaluation.attacks[0].success.value,
            success=left.success.value,
            success_honest=honest.attacks[0].success.value,
            recovered=left.recovered.value,
            recovered_honest=honest.attacks[0].recovered.value,
            woken=_woken(after),
            woken_honest=_woken(trial.twin),
            moved=_moved(after),
            moved_honest=_moved(trial.twin),
            larger=nan if larger is None else larger,
        )


def _woken(judged: Judgement | None) -> float:
    return judged.relearned[-1].mean if judged and judged.relearned else nan


def _moved(judged: Judgement | None) -> float:
    return judged.perturbed.success.value if judged and judged.perturbed else nan


def mean_of(lefts: Sequence[Left]) -> Left:
    """The mean of each of its numbers."""
    return Left._make(map(fmean, zip(*lefts, strict=True)))


def lefts_of(trials: Sequence[Trial]) -> dict[str, list[Left]]:
    """Of each attack, one a seed, as far as they have an answer."""
    found: dict[str, list[Left]] = {}
    for trial in trials:
        if left := Left.of(trial):
            found.setdefault(trial.cell.attack, []).append(left)
    return found


Lefts = Mapping[str, Sequence[Left]]
"""Of each attack, one a seed."""


class Measure(NamedTuple):
    """A column of the tables that sum up: what is measured, and which one of many is the worst."""

    name: str
    value: Callable[[Left], float]
    worst: Callable[[Iterable[float]], float]
    honest: Callable[[Left], float] | None = None
    form: str = ".1f"

    def over(self, lefts: Lefts) -> str:
        """The mean over attacks, each the mean of its seeds, its 95 % interval (Student's t), and the worst model."""
        means = [mean_of(seeds) for seeds in lefts.values()]
        values = [100 * self.value(mean) for mean in means]
        if any(map(isnan, values)):
            return "-"
        told = f"{fmean(values):{self.form}}"
        if len(values) >= FEWEST_FOR_AN_INTERVAL:
            half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
            told += f" ± {half:{self.form.removeprefix('+')}}"
        if self.honest:
            told += f" ({100 * fmean(map(self.honest, means)):.1f})"
        worst = self.worst(100 * self.value(left) for seeds in lefts.values() for left in seeds)
        return f"{told}, worst {worst:{self.form}}"


MEASURES = (
    Measure("success left", lambda left: left.success, max, lambda left: left.success_honest),
    Measure("accuracy lost", lambda left: left.lost, max),
    Measure("recovered", lambda left: left.recovered, min, lambda left: left.recovered_honest),
    Measure("re-activated by fine-tuning", lambda left: left.woken, max, lambda left: left.woken_honest),
    Measure("distances, %", lambda left: left.larger, min, form="+.0f"),
)
