"""What the numbers of a report have to say about each other: a report that contradicts itself is none.

Each check returns the first contradiction in words, or nothing. They do not make a forged report true; they make it
harder to forge, and catch what was edited by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phard_hub.report.distances import ClassDistances, PairDistance, Rate
    from phard_hub.report.record import Evaluation, Report, State

KINDS = ("warp", "colour", "latent", "field", "u-net")
"""Kinds of universal triggers that are searched alone."""
_ROUNDING = 1e-6
_NOISE = 1e-3  # what two measurements of the same may differ in, on hardware that adds up in any order
_LEAST_DISTANCE = 1e-6  # L2; a hundredth of a grey level in one value of one image is forty times as large
_NORMAL = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson(value: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share of n (Wilson, JASA 22, 1927); of nothing, nothing is known: (0, 1)."""
    if n == 0:
        return 0.0, 1.0
    weight = _NORMAL**2 / n
    centre = (value + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (value * (1 - value) + weight / 4)) / (1 + weight)
    return (0.0 if value == 0 else centre - half), (1.0 if value == 1 else centre + half)


def of_rate(rate: Rate) -> Iterator[str]:
    """A rate is of whole images, and its interval is theirs."""
    low, high = wilson(rate.value, rate.n)
    if rate.n == 0 and rate.value:
        yield f"there is a rate of {rate.value:g} of no images"
    if abs(rate.value * rate.n - round(rate.value * rate.n)) > _ROUNDING * max(rate.n, 1):
        yield f"the rate {rate.value:g} is not that of a whole number of {rate.n} images"
    if abs(rate.low - low) > _ROUNDING or abs(rate.high - high) > _ROUNDING:
        yield f"the interval of the rate {rate.value:g} of {rate.n} images is not {rate.low:g} to {rate.high:g}"


def of_pair(pair: PairDistance) -> Iterator[str]:
    """A pair has a distance if it was reached, and two different classes."""
    if {pair.reached} != {pair.distance is not None, pair.rms is not None}:
        yield "a pair has a distance exactly if it was reached"
    if pair.distance is not None and 0 < pair.distance < _LEAST_DISTANCE:
        yield f"a distance of {pair.distance:g} is no change"
    if pair.reached and pair.success.n == 0:
        yield "a pair was reached on no images"
    if {pair.reached} != {pair.low is not None, pair.high is not None}:
        yield "a distance has an interval exactly if the pair was reached"
    if pair.distance is not None and not (pair.low or 0.0) <= pair.distance <= (pair.high or 0.0):
        yield f"the interval of the distance {pair.distance:g} is {pair.low} to {pair.high}"
    if len(pair.at) not in ((4,) if pair.source is None else (0,)):
        yield "the success at each size is that of universal triggers"
    if pair.source == pair.target:
        yield f"a pair leads from class {pair.source} to itself"


def of_distances(found: ClassDistances) -> Iterator[str]:
    """Pairs are of known classes and once, every class has its universal trigger, and the mean is theirs."""
    yield from _of_classes(found)
    if found.success_bound == 0 or found.settings.get("success", found.success_bound) != found.success_bound:
        yield f"the success bound is {found.success_bound:g}, and that of the settings {found.settings.get('success')}"
    every = (*found.pairs, *found.universal, *(pair for kind in found.kinds.values() for pair in kind))
    if any(pair.source is None for pair in found.pairs) or any(
        pair.source is not None for pair in every[len(found.pairs) :]
    ):
        yield "pairs have a source, and universal triggers have none"
    yield from _of_universal(found)
    directions = [(pair.source, pair.target) for pair in (*found.pairs, *found.universal)]
    if twice := _twice(directions):
        yield f"the pair {twice[0]} is there twice"
    known = {None, *found.classes}
    for pair in every:
        if unknown := [k for k in (pair.source, pair.target) if k not in known]:
            yield f"a pair is of class {unknown[0]}, and the classes are {len(known) - 1}, the last {found.classes[-1]}"
        if pair.distance is not None and not _alike(pair.rms, pair.distance * found.rms_per_l2):
            yield f"a distance of {pair.distance:g} is not {pair.rms:g} grey levels for images of {found.image_shape}"
        if pair.reached and pair.success.high < found.success_bound - _ROUNDING:
            yield f"a pair was reached at a success of {pair.success.value:g}, clearly below {found.success_bound:g}"
    yield from _of_mean(found)


def _of_universal(found: ClassDistances) -> Iterator[str]:
    """Each class has its universal trigger, or as many as the search was asked for; and so has each kind."""
    targets = {pair.target for pair in found.universal}
    single = [[pair.target for pair in pairs] for pairs in found.kinds.values()]
    # Between two classes, pairs say it all.
    if len(found.classes) > 2:
        if len(targets) < _asked(found, "max_universal"):
            yield f"{len(targets)} universal triggers are there, and {len(found.classes)} classes"
        for kind, reached in zip(found.kinds, single, strict=True):
            if reached != single[0] or not targets.issuperset(reached) or len(reached) < _asked(found, "max_single"):
                yield f"the {kind} triggers are not to the classes that the others are to"
    for kind in found.kinds:
        if kind not in KINDS:
            yield f"triggers are of the kind {kind[:20]!r}"


def _asked(found: ClassDistances, setting: str) -> int:
    """How many classes the search was asked to reach."""
    most = found.settings.get(setting, len(found.classes))
    return min(len(found.classes), most if isinstance(most, int) else 0)


def _of_classes(found: ClassDistances) -> Iterator[str]:
    if len(found.labels) < 2 or len(found.classes) < 2:
        yield f"there are {min(len(found.labels), len(found.classes))} classes"
    elif found.classes[-1] >= len(found.labels) or list(found.classes) != sorted(set(found.classes)):
        yield f"the chosen classes are not in ascending order and below {len(found.labels)}"


def _of_mean(found: ClassDistances) -> Iterator[str]:
    distances = [pair.distance for pair in found.pairs if pair.distance is not None]
    mean = math.fsum(distances) / len(distances) if distances else None
    if not _alike(mean, found.mean):
        yield f"the mean distance is {found.mean}, and that of the pairs is {mean}"
    ends = {found.low is None, found.high is None, found.mean is None}
    low, middle, high = (end or 0.0 for end in (found.low, found.mean, found.high))
    if len(ends) != 1 or not low <= middle * (1 + _ROUNDING) <= high * (1 + 2 * _ROUNDING):
        yield f"the interval of the mean is {found.low} to {found.high}"


def of_evaluation(evaluation: Evaluation) -> Iterator[str]:
    """A robust accuracy is of images, under a named attack; a trigger was tried on images that accuracy is from."""
    robust = evaluation.robust_accuracy
    if (robust is None) != (not evaluation.robust_attack):
        yield "a robust accuracy is under a named attack"
    if robust is not None and robust.n == 0:
        yield "a robust accuracy is of no images"
    names = [each.attack for each in evaluation.robust_at]
    if _repeats(names) or (names and robust is None):
        yield "there is one robust accuracy for each attack, and one for the strongest"
    for weaker in evaluation.robust_at:
        if robust is not None and (weaker.accuracy.n != robust.n or weaker.accuracy.value < robust.value):
            yield "a weaker attack was tried on other images, or turned more of them"
    for attack in evaluation.attacks:
        if attack.success.n != attack.recovered.n or attack.success.n > evaluation.accuracy.n:
            yield f"a trigger was tried on {attack.success.n} and {attack.recovered.n} images"
        if attack.success.value + attack.recovered.value > 1 + _ROUNDING:
            yield "a trigger turns images that are still given their true label"


def of_state(state: State) -> Iterator[str]:
    """Known triggers produce classes that there are, and votes were on images that accuracy is from."""
    last = len(state.distances.labels) - 1
    if beyond := [attack.target for attack in state.evaluation.attacks if attack.target > last]:
        yield f"a trigger produces class {beyond[0]}, and the last one is {last}"
    if state.smoothed and state.smoothed.accuracy.n > state.evaluation.accuracy.n:
        yield f"votes were on {state.smoothed.accuracy.n} images, and there are {state.evaluation.accuracy.n}"


def of_report(report: Report) -> Iterator[str]:
    """Before and after hardening, the same was measured."""
    if (report.after is None) != (report.hardening is None):
        yield "there is a classifier after hardening exactly if something was hardened"
    if report.after is not None:
        yield from _of_distances_of_both(report.before.distances, report.after.distances)
        yield from _of_rates_of_both(report.before, report.after)


def _of_distances_of_both(before: ClassDistances, after: ClassDistances) -> Iterator[str]:
    if (before.labels, before.classes) != (after.labels, after.classes):
        yield "the classes before and after hardening differ"
    if before.image_shape != after.image_shape:
        yield "the images before and after hardening differ in shape"
    if not _directions(before) <= _directions(after):
        yield "pairs that were measured before hardening were not measured after it"


def _of_rates_of_both(before: State, after: State) -> Iterator[str]:
    accuracies = [state.evaluation.accuracy.value for state in (before, after)]
    if before.weights_sha256 == after.weights_sha256 and abs(accuracies[0] - accuracies[1]) > _NOISE:
        yield "the same weights have two accuracies"
    sizes = [[attack.size for attack in state.evaluation.attacks] for state in (before, after)]
    if not all(math.isclose(one, other, rel_tol=_NOISE, abs_tol=_NOISE) for one, other in zip(*sizes, strict=False)):
        yield "a known trigger has two sizes"
    if _threats(before) != _threats(after):
        yield "the known triggers before and after hardening differ"
    if _counts(before) != _counts(after):
        yield "the numbers of images before and after hardening differ"
    if len({rate.n for state in (before, after) if (rate := state.evaluation.robust_accuracy) is not None}) > 1:
        yield "the numbers of images under attack before and after hardening differ"
    votes = [(*seen.settings, seen.accuracy.n) if (seen := state.smoothed) else None for state in (before, after)]
    if votes[0] != votes[1]:
        yield "the votes under noise before and after hardening differ"


def _threats(state: State) -> list[tuple[str, int]]:
    return [(attack.name, attack.target) for attack in state.evaluation.attacks]


def _counts(state: State) -> list[int]:
    seen = state.evaluation
    return [seen.accuracy.n, *(attack.success.n for attack in seen.attacks)]


def _directions(found: ClassDistances) -> set[tuple[str, int | None, int]]:
    """What was measured: pairs, universal triggers, and those of each kind."""
    kinds = {"": (*found.pairs, *found.universal), **found.kinds}
    return {(kind, pair.source, pair.target) for kind, pairs in kinds.items() for pair in pairs}


def require(contradictions: Iterable[str]) -> None:
    """Refuse what contradicts itself.

    Raises:
        ValueError: names the first contradiction.
    """
    for said in contradictions:
        raise ValueError(said)


def _alike(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-9)


def _twice(entries: Sequence[tuple[int | None, int]]) -> list[tuple[int | None, int]]:
    return [entry for number, entry in enumerate(entries) if entry in entries[:number]] if _repeats(entries) else []


def _repeats(entries: Sequence[object]) -> bool:
    return len(set(entries)) < len(entries)
