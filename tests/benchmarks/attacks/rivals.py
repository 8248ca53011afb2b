"""The tables of defenses beside each other, on a model without a backdoor: what each gains, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from phard_hub.report.distances import GREY_LEVELS, ClassDistances, PairDistance, both_reached, mean_increase
from phard_hub.report.trial import NO_DEFENSE, Judgement, Trial
from tests.benchmarks.attacks.outcomes import grouped

KINDS = ("warp", "colour", "latent", "field", "u-net")
PGD = ("0.5", "1", "2", "8")
_SHOWN_AT = tuple(GREY_LEVELS.index(level) for level in (10.0, 20.0))


def head() -> tuple[str, ...]:
    """What the columns say."""
    return (
        *("defense", "seeds", "accuracy", "pairs", "to one class"),
        *KINDS,
        *(f"success at {GREY_LEVELS[level]:g}" for level in _SHOWN_AT),
        *(f"PGD {size}/255" for size in PGD),
        *("sample-gradients", "minutes"),
    )


def hardened(trials: Sequence[Trial]) -> list[tuple[str, ...]]:
    """One line a defense, means over seeds: accuracy and success in percent, distances as increases in percent.

    The first line is the model as it is. Distances to one class are those of universal triggers, of all parts and then
    of each kind alone; behind each stands over how many classes the mean is, where it is not over all.
    """
    done = [trial for trial in trials if trial.status == "done" and trial.cell.attack == "none"]
    rows = []
    for defense, same in grouped(done, lambda trial: trial.cell.defense).items():
        pairs = [(trial.before, trial.after) for trial in same if trial.before and trial.after]
        rows.append(
            (
                defense,
                str(len(pairs)),
                _mean([100 * after.evaluation.accuracy.value for _, after in pairs], ".2f"),
                *([""] * (2 + len(KINDS)) if defense == NO_DEFENSE else _increases(pairs)),
                *(_mean([_success(after, level) for _, after in pairs], ".1f") for level in _SHOWN_AT),
                *_robust([after for _, after in pairs]),
                *(("", "") if defense == NO_DEFENSE else _costs(same)),
            )
        )
    return sorted(rows, key=lambda row: (row[0] != NO_DEFENSE, row[0] != "pervasive"))


def _increases(pairs: Sequence[tuple[Judgement, Judgement]]) -> list[str]:
    found = [(before.distances, after.distances) for before, after in pairs if before.distances and after.distances]
    columns = [[(one.pairs, two.pairs) for one, two in found], [(one.universal, two.universal) for one, two in found]]
    columns += [[(one.kinds.get(kind, ()), two.kinds.get(kind, ())) for one, two in found] for kind in KINDS]
    return [_increase(column) for column in columns]


def _increase(column: Sequence[tuple[Sequence[PairDistance], Sequence[PairDistance]]]) -> str:
    both = [both_reached(before, after) for before, after in column]
    increases = [mean for each in both if (mean := mean_increase(each)) is not None]
    if not increases or len(increases) < len(column):
        return "out of reach"
    reached, of = sum(map(len, both)), sum(len(before) for before, _ in column)
    return f"{100 * fmean(increases):+.0f}" + ("" if reached == of else f" ({reached} of {of})")


def _success(judged: Judgement, level: int) -> float:
    """Of the best universal trigger of a size, in percent, over the classes."""
    distances: ClassDistances | None = judged.distances
    rates = [distances.best_at(level, k) for k in distances.classes] if distances else []
    return 100 * fmean(rate.value for rate in rates if rate)


def _robust(judged: Sequence[Judgement]) -> list[str]:
    """Accuracy under PGD of several sizes, in percent; empty where it was not looked at."""
    columns: list[list[float]] = [[] for _ in PGD]
    for each in judged:
        seen = {one.attack: one.accuracy for one in each.evaluation.robust_at}
        if each.evaluation.robust_accuracy:
            seen[each.evaluation.robust_attack] = each.evaluation.robust_accuracy
        for size, column in zip(PGD, columns, strict=True):
            column += [100 * found.value for name, found in seen.items() if name.endswith(f" {size}/255")]
    return [_mean(column, ".1f") if column else "" for column in columns]


def _costs(trials: Sequence[Trial]) -> tuple[str, str]:
    counts = [trial.hardening.sample_gradients for trial in trials if trial.hardening]
    return f"{fmean(counts):,.0f}", _mean([trial.seconds.get("hardening", 0.0) / 60 for trial in trials], ".0f")


def _mean(values: Sequence[float], form: str) -> str:
    """The mean, and the range if there are several."""
    told = f"{fmean(values):{form}}"
    return told if len(values) == 1 else f"{told} [{min(values):{form}}, {max(values):{form}}]"
