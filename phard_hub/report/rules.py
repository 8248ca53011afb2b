"""The rules of a policy: each looks at a report, and says pass, fail, not evaluated or not applicable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from phard_hub.report.deployed import SIGNATURE_NAME, Deployed, other_files, other_weights
from phard_hub.report.distances import GREY_LEVELS, ClassDistances, Rate
from phard_hub.report.outliers import LARGEST, LEAST_CLASSES, LEAST_IMAGES, outliers
from phard_hub.report.record import Report, State
from phard_hub.report.wording import outlier_words, pair_name, printable, two_numbers

Outcome = Literal["pass", "fail", "not_evaluated", "not_applicable"]

# A loss of 0.90 - 0.89 is 1.0000000000000009 points: rounding must not refuse a model.
_ROUNDING = 1e-9


class Judgement(NamedTuple):
    """The answer of a rule before it gets its name and limit."""

    outcome: Outcome
    value: float | None
    message: str


@dataclass(frozen=True)
class Case:
    """What a rule may look at: the report, and the stage of it that is judged."""

    report: Report
    state: State


Rule = Callable[[Case, float], Judgement]


def _at_most(what: str, value: float, limit: float, unit: str, note: str = "") -> Judgement:
    """Pass up to the limit, in words such as ``accuracy loss 0.4 <= 1.0 points``."""
    ok = value <= limit + _ROUNDING
    return _judge(ok, what, value, "<=" if ok else ">", limit, unit, note)


def _at_least(what: str, value: float, limit: float, unit: str, note: str = "") -> Judgement:
    """Pass from the limit on, in words such as ``mean class distance 7.9 < 8.0 grey levels``."""
    ok = value >= limit - _ROUNDING
    return _judge(ok, what, value, ">=" if ok else "<", limit, unit, note)


def _judge(ok: bool, what: str, value: float, sign: str, limit: float, unit: str, note: str) -> Judgement:
    scale = 100 if unit == "%" else 1
    left, right = two_numbers(scale * value, scale * limit)
    message = f"{what} {left} {sign} {right} {unit}" + (f" ({note})" if note else "")
    return Judgement("pass" if ok else "fail", value, message)


def _unknown(why: str) -> Judgement:
    return Judgement("not_evaluated", None, why)


def _reached_note(distances: ClassDistances) -> str:
    """Say how many pairs a mean leaves out; they are further than the search could go."""
    missing = len(distances.pairs) - len(distances.reached)
    note = f"over {len(distances.reached)} of {len(distances.pairs)} pairs"
    return f"{note}; the search did not reach the other {missing}" if missing else note


def _known(rate: Rate | None) -> bool:
    return rate is not None and rate.n > 0


# The rules. Each docstring is the meaning that users read in SARIF help texts.


def max_accuracy_loss(case: Case, limit: float) -> Judgement:
    """Hardening may cost at most this much accuracy on clean test images, in points of percent."""
    before, after = case.report.before.evaluation.accuracy, case.state.evaluation.accuracy
    if not (_known(before) and _known(after)):
        return _unknown("accuracy was not measured before and after hardening")
    return _at_most("accuracy loss", 100 * (before.value - after.value), limit, "points", f"{after.n} images")


def max_robust_accuracy_loss(case: Case, limit: float) -> Judgement:
    """Hardening may cost at most this much accuracy under attack, in points of percent."""
    before, after = case.report.before.evaluation, case.state.evaluation
    if before.robust_accuracy is None or after.robust_accuracy is None:
        return _unknown("robust accuracy was not measured before and after hardening")
    if before.robust_attack != after.robust_attack:
        return _unknown("robust accuracy before and after hardening is from different attacks")
    loss = 100 * (before.robust_accuracy.value - after.robust_accuracy.value)
    return _at_most("robust accuracy loss", loss, limit, "points", printable(after.robust_attack))


def min_accuracy(case: Case, limit: float) -> Judgement:
    """At least this share of clean test images must be classified correctly."""
    rate = case.state.evaluation.accuracy
    if not _known(rate):
        return _unknown("accuracy was not measured")
    return _at_least("accuracy", rate.value, limit, "%", f"{rate.n} images")


def min_robust_accuracy(case: Case, limit: float) -> Judgement:
    """At least this share of test images must be classified correctly under attack."""
    rate, attack = case.state.evaluation.robust_accuracy, case.state.evaluation.robust_attack
    if rate is None or not _known(rate):
        return _unknown("robust accuracy was not measured")
    return _at_least("robust accuracy", rate.value, limit, "%", f"{printable(attack)}, {rate.n} images")


def min_mean_distance(case: Case, limit: float) -> Judgement:
    """An image-wide change that turns one class into another must be at least this large on average.

    The mean is over the pairs that the search reached; the others are further than it could go. If it
    reached none, the rule is not evaluated.
    """
    distances = case.state.distances
    if distances.mean_rms is None or not distances.reached:
        return _unknown(f"the search reached none of {len(distances.pairs)} pairs, so there is no mean distance")
    note = _reached_note(distances)
    return _at_least("mean class distance", distances.mean_rms, limit, "grey levels", note)


def min_smallest_distance(case: Case, limit: float) -> Judgement:
    """The smallest image-wide change found, of one class pair or universal, must be at least this large."""
    distances = case.state.distances
    alone = tuple(trigger for kind in distances.kinds.values() for trigger in kind)
    every = distances.pairs + distances.universal + alone
    found = [(trigger.rms, trigger) for trigger in every if trigger.rms is not None]
    if not found:
        return _unknown(f"the search reached none of {len(distances.pairs)} pairs, so there is no smallest distance")
    rms, trigger = min(found, key=lambda entry: entry[0])
    return _at_least("smallest class distance", rms, limit, "grey levels", pair_name(distances, trigger))


def min_distance_increase(case: Case, limit: float) -> Judgement:
    """Hardening must make class distances larger by at least this share, on average over the pairs.

    Only pairs reached both before and after hardening are compared. Both searches must have had the
    same settings, or the increase would be one of effort.
    """
    before, after = case.report.before.distances, case.state.distances
    if different := _different_settings(before, after):
        return _unknown(f"distances before and after were searched with different {', '.join(different)}")
    increase = case.report.distance_increase()
    if increase is None:
        return _unknown("no pair was reached both before and after hardening")
    note = f"over {len(case.report.both_reached())} pairs reached both times"
    if lost := case.report.no_longer_reached():
        note += f"; {lost} no longer reached"
    return _at_least("distance increase", increase, limit, "%", note)


def _different_settings(before: ClassDistances, after: ClassDistances) -> list[str]:
    """Names of the settings in which two searches differ; seeds may."""
    left = before.settings | {"success bound": before.success_bound, "image shape": before.image_shape}
    right = after.settings | {"success bound": after.success_bound, "image shape": after.image_shape}
    names = (left.keys() | right.keys()) - {"seed"}
    return sorted(printable(name) for name in names if left.get(name) != right.get(name))


def min_pairs_measured(case: Case, limit: float) -> Judgement:
    """At least this many class pairs must have been measured (all of them where there are fewer).

    Fewer do not make a model worse, but the answer unknown: the rule is then not evaluated.
    """
    distances = case.state.distances
    classes, measured = len(distances.classes), len(distances.pairs)
    needed = min(int(limit), classes * (classes - 1))
    message = f"{measured} pairs measured, {needed} needed"
    return Judgement("pass" if measured >= needed else "not_evaluated", measured, message)


def min_pairs_reached(case: Case, limit: float) -> Judgement:
    """The search must have reached at least this share of the pairs that it was asked for.

    A search that stops early reaches few pairs, and these say little about the others: the rule is then
    not evaluated.
    """
    distances = case.state.distances
    if not distances.pairs:
        return _unknown("no pair was measured")
    share = len(distances.reached) / len(distances.pairs)
    note = f"{len(distances.reached)} of {len(distances.pairs)}"
    judgement = _at_least("pairs reached", share, limit, "%", note)
    return judgement._replace(outcome="pass" if judgement.outcome == "pass" else "not_evaluated")


def max_attack_success(case: Case, limit: float) -> Judgement:
    """Each known trigger may turn at most this share of the images that are not of its target class.

    The rule is not applicable where no trigger is known, which is the rule for a model from elsewhere.
    """
    attacks = case.state.evaluation.attacks
    if not attacks and case.report.before.evaluation.attacks:
        return _unknown("the triggers that were known before hardening were not tried after it")
    if not attacks:
        return Judgement("not_applicable", None, "no trigger is known for this model")
    unseen = [attack.name for attack in attacks if not _known(attack.success)]
    if unseen:
        return _unknown(f"no image to try the trigger {printable(unseen[0])} on")
    worst = max(attacks, key=lambda attack: attack.success.value)
    over = sum(attack.success.value > limit + _ROUNDING for attack in attacks)
    seen = f"{'0 of ' if worst.success.value == 0 else ''}{worst.success.n} images"
    note = f"{seen}; worst of {len(attacks)} known triggers, {over} over the limit"
    return _at_most(f"attack success of {printable(worst.name)}", worst.success.value, limit, "%", note)


def max_outlier(case: Case, limit: float) -> Judgement:
    """Universal triggers may reach no class with changes that are so many times smaller than the others need.

    The others are counted by their median, for each kind of trigger. A class fails if it is beyond the limit by its
    95 % interval; if it is beyond it only by its value, and fewer than 50 images judged, the rule is not evaluated.
    """
    distances = case.state.distances
    if len(distances.classes) < LEAST_CLASSES:
        return Judgement("not_applicable", None, f"{len(distances.classes)} classes are too few to stand out from")
    if not any(
        pair.reached for pair in (*distances.universal, *(p for kind in distances.kinds.values() for p in kind))
    ):
        return _unknown("universal triggers reached no class, so nothing can be compared")
    found = outliers(distances)
    if not found:
        return Judgement("pass", None, f"no class was reached by changes of up to {LARGEST:g} grey levels")
    worst = max(found, key=lambda each: (each.least > limit, each.times))
    message = f"{outlier_words(distances, worst)}; at most {limit:g} times is allowed"
    if worst.times > limit + _ROUNDING and worst.images < LEAST_IMAGES:
        return _unknown(f"{message}, and {worst.images} images are too few to tell")._replace(value=worst.times)
    if worst.least > limit:
        return Judgement("fail", worst.times, message)
    doubt = f", and it may be {worst.least:.1f} times" if worst.times > limit else ""
    return Judgement("pass", worst.times, f"{message}{doubt}")


def max_universal_success_at(case: Case, level: str, limit: float) -> Judgement:
    """The best universal trigger of each class may turn at most this share of images with changes of this size."""
    distances, number = case.state.distances, [f"{each:g}" for each in GREY_LEVELS].index(level)
    rates = {k: rate for k in distances.classes if (rate := distances.best_at(number, k)) is not None}
    if not rates:
        return _unknown("no universal triggers were searched")
    worst, rate = max(rates.items(), key=lambda entry: entry[1].value)
    note = f"any class -> {printable(distances.labels[worst], 30)}, {rate.n} images"
    return _at_most(f"success of universal triggers of {level} grey levels", rate.value, limit, "%", note)


def min_certified_accuracy(case: Case, radius: str, limit: float) -> Judgement:
    """At least this share of test images must be certified: votes under noise are right whatever small change is made.

    It holds for any model, and only where the votes are what answers.
    """
    found = case.state.smoothed
    if found is None:
        return _unknown("votes under noise were not measured (`--certify`)")
    rate = next(each.accuracy for each in found.at if f"{each.radius:g}" == radius)
    what = f"certified accuracy within L2 {radius}"
    return _at_least(what, rate.value, limit, "%", f"{found}, {rate.n} images")


def any_number() -> Judgement:
    """At least one rule must look at a number: where none does, nothing is known of the model."""
    return _unknown("no number was looked at: all rules about numbers are off or not applicable")


def forbid_findings(case: Case, severities: tuple[str, ...]) -> Judgement:
    """The audit of the files must not have found anything of these severities."""
    if not severities:
        return Judgement("not_applicable", None, "the list is empty: no audit finding is forbidden")
    found = [finding for finding in case.report.findings if finding.severity in severities]
    kinds = " or ".join(severities)
    if not found:
        return Judgement("pass", 0, f"no audit finding of severity {kinds}")
    first = f"{printable(found[0].id)} in {printable(found[0].file)}"
    return Judgement("fail", len(found), f"{len(found)} audit findings of severity {kinds}: {first}")


def same_weights(case: Case, deployed: Deployed) -> Judgement:
    """The weights that are to be deployed must be the very ones that the report is about."""
    if fault := other_weights(deployed, case.report, case.state):
        return Judgement("fail", None, fault)
    return Judgement("pass", None, f"the report is about these weights ({case.state.weights_sha256[:12]})")


def same_files(case: Case, deployed: Deployed) -> Judgement:
    """Config and image processor must be those of the report, with nothing beside them that a library could load."""
    if fault := other_files(deployed, case.report):
        return Judgement("fail", None, fault)
    return Judgement("pass", None, "the report speaks of all files that a library could load")


def require_signature(_case: Case, deployed: Deployed | None) -> Judgement:
    """Report, weights, config and image processor must be signed by the key that the policy names."""
    if deployed is None:
        return _unknown("a report alone is not signed: sign its release (`phard sign`) and give that to `phard gate`")
    signature = deployed.signature
    if signature.state == "holds":
        return Judgement("pass", None, signature.message)
    if signature.state in ("absent", "broken"):
        return Judgement("fail", None, signature.message or f"there is no {SIGNATURE_NAME}")
    return _unknown(signature.message or f"{SIGNATURE_NAME} was not checked")


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        max_accuracy_loss,
        max_robust_accuracy_loss,
        min_accuracy,
        min_robust_accuracy,
        min_mean_distance,
        min_smallest_distance,
        min_distance_increase,
        min_pairs_measured,
        min_pairs_reached,
        max_attack_success,
        max_outlier,
    )
}
CHANGE_RULES = frozenset({"max_accuracy_loss", "max_robust_accuracy_loss", "min_distance_increase"})


def rule_help(name: str) -> str:
    """What a rule means, as one paragraph."""
    levels = (max_universal_success_at, min_certified_accuracy)
    others = (any_number, forbid_findings, *levels, same_weights, same_files, require_signature)
    rules = {**RULES, **{rule.__name__: rule for rule in others}}
    return " ".join((rules[name].__doc__ or "").split())
