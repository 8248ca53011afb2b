"""Views of a report, of a verdict and of an audit as rows, text, JSON and JUnit; pure functions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple
from xml.etree import ElementTree as ET

from phard_hub.report import findings
from phard_hub.report.distances import GREY_LEVELS, ClassDistances, PairDistance, Rate
from phard_hub.report.findings import SEVERITIES, AuditRecord
from phard_hub.report.gate import MEANINGS, Verdict
from phard_hub.report.outliers import LARGEST, outliers
from phard_hub.report.policy import Policy
from phard_hub.report.record import AttackOutcome, Report, State
from phard_hub.report.rules import Outcome
from phard_hub.report.wording import OUTCOMES, outlier_words, pair_name, printable

NOT_MEASURED = "not measured"


class Row(NamedTuple):
    """One line of the summary; ``after`` is empty where nothing was hardened."""

    metric: str
    before: str
    after: str


def summary_rows(report: Report) -> list[Row]:
    """The numbers of a report as rows of metric, before and after, each with its doubt."""
    rows = [_row(report, metric, view) for metric, view in _metrics(report)]
    if report.after is not None:
        increase = report.distance_increase()
        count = len(report.both_reached())
        change = "no pair to compare" if increase is None else f"{100 * increase:+.0f} % over {count} pairs"
        rows.append(Row("Distance increase (pairs reached both times)", "", change))
        rows.append(Row("Pairs no longer reached", "", str(report.no_longer_reached())))
    return rows


def _row(report: Report, metric: str, view: Callable[[State], str]) -> Row:
    return Row(metric, view(report.before), view(report.after) if report.after else "")


def _metrics(report: Report) -> Iterator[tuple[str, Callable[[State], str]]]:
    """Names of the metrics, and how each is read from one state."""
    yield "Accuracy", lambda state: rate_text(state.evaluation.accuracy)
    attack = (report.after or report.before).evaluation.robust_attack
    name = f"Robust accuracy ({printable(attack)})" if attack else "Robust accuracy"
    yield name, lambda state: rate_text(state.evaluation.robust_accuracy)
    for weaker in (report.after or report.before).evaluation.robust_at:
        yield f"Robust accuracy ({printable(weaker.attack)})", _robust_view(weaker.attack)
    if votes := report.before.smoothed:
        yield f"Accuracy of the vote ({votes})", _voted
        for number, each in enumerate(votes.at):
            yield f"Certified accuracy (L2 {each.radius:g})", _certified_view(number)
    for name, target in _attacks(report):
        label = _label(report.before.distances, target)
        title = f"{printable(name)} -> {label}"
        yield f"Attack success ({title})", _attack_view(name, target, lambda outcome: outcome.success)
        yield f"The same on a model without it ({title})", _attack_view(name, target, lambda outcome: outcome.reference)
        yield f"Recovered accuracy ({title})", _attack_view(name, target, lambda outcome: outcome.recovered)
    if report.before.distances.pairs:
        yield "Pairs reached", lambda state: _reached_text(state.distances)
        yield "Mean class distance", lambda state: _mean_text(state.distances)
        yield "Smallest class distance", lambda state: _pair_text(state.distances, state.distances.smallest)
    yield "Smallest universal trigger", lambda state: _pair_text(state.distances, smallest_universal(state.distances))
    for kind in report.before.distances.kinds:
        yield f"Universal triggers of {kind} alone", _kind_view(kind)
    for level, size in enumerate(GREY_LEVELS):
        yield f"Success of universal triggers of {size:g} grey levels", _success_view(level)
    yield "Class that stands out most", lambda state: _outlier_text(state.distances)


def _robust_view(attack: str) -> Callable[[State], str]:
    """How to read from a state the accuracy under one attack."""

    def view(state: State) -> str:
        return rate_text(next((each.accuracy for each in state.evaluation.robust_at if each.attack == attack), None))

    return view


def _voted(state: State) -> str:
    return rate_text(None if state.smoothed is None else state.smoothed.accuracy)


def _certified_view(number: int) -> Callable[[State], str]:
    """How to read from a state how many images no change of a radius can turn."""

    def view(state: State) -> str:
        return rate_text(None if state.smoothed is None else state.smoothed.at[number].accuracy)

    return view


def _attacks(report: Report) -> list[tuple[str, int]]:
    """Name and target of each known attack, of both states, in order and once."""
    states = [report.before, report.after] if report.after else [report.before]
    return list(dict.fromkeys((attack.name, attack.target) for state in states for attack in state.evaluation.attacks))


def _attack_view(name: str, target: int, rate: Callable[[AttackOutcome], Rate | None]) -> Callable[[State], str]:
    """How to read one rate of one attack from a state."""

    def view(state: State) -> str:
        rates = [rate(attack) for attack in state.evaluation.attacks if (attack.name, attack.target) == (name, target)]
        return rate_text(rates[0] if rates else None)

    return view


def _label(distances: ClassDistances, index: int) -> str:
    """The name of a class; its number where there is no name."""
    return printable(distances.labels[index], 30) if 0 <= index < len(distances.labels) else f"class {index}"


def rate_text(rate: Rate | None) -> str:
    """A rate with its interval and number of images, or that it was not measured."""
    if rate is None or rate.n == 0:
        return NOT_MEASURED
    return str(rate) if rate.value == 0 else f"{rate}, n = {rate.n}"


def _mean_text(distances: ClassDistances) -> str:
    """The mean in L2 with its interval, and in grey levels."""
    if distances.mean is None or distances.mean_rms is None:
        return "no pair reached"
    interval = (
        "" if distances.low is None or distances.high is None else f" [{distances.low:.2f}, {distances.high:.2f}]"
    )
    grey = f"{distances.mean_rms:.1f}"
    if distances.low is not None and distances.high is not None:
        grey += f" [{distances.low * distances.rms_per_l2:.1f}, {distances.high * distances.rms_per_l2:.1f}]"
    return f"{grey} grey levels; L2 {distances.mean:.2f}{interval}"


def _pair_text(distances: ClassDistances, pair: PairDistance | None) -> str:
    if pair is None or pair.distance is None or pair.rms is None:
        return "none reached" if distances.pairs or distances.universal else NOT_MEASURED
    return f"{pair.rms:.1f} grey levels; L2 {pair.distance:.2f} ({pair_name(distances, pair)})"


def _reached_text(distances: ClassDistances) -> str:
    """Pairs reached of those measured, and of how many there are where not all were."""
    measured = len(distances.pairs)
    others = f" measured; there are {distances.possible:,}" if measured < distances.possible else ""
    return f"{len(distances.reached)} of {measured}{others}"


def _kind_view(kind: str) -> Callable[[State], str]:
    """How to read from a state what changes of one kind come to."""

    def view(state: State) -> str:
        found = state.distances.kinds.get(kind, ())
        levels = [pair.rms for pair in found if pair.rms is not None]
        count = f"{len(levels)} of {len(found)} classes reached"
        return f"{count}, by {median(levels):.1f} grey levels (median)" if levels else count

    return view


def _success_view(level: int) -> Callable[[State], str]:
    """How to read from a state what the best universal triggers of one size do."""

    def view(state: State) -> str:
        distances = state.distances
        rates = {k: rate for k in distances.classes if (rate := distances.best_at(level, k)) is not None}
        if not rates:
            return NOT_MEASURED
        worst, rate = max(rates.items(), key=lambda entry: entry[1].value)
        middle = median(each.value for each in rates.values())
        return f"median class {100 * middle:.0f} %, worst {rate_text(rate)} (any class -> {_label(distances, worst)})"

    return view


def _outlier_text(distances: ClassDistances) -> str:
    found = outliers(distances)
    if found:
        return outlier_words(distances, found[0])
    return f"none within {LARGEST:g} grey levels" if distances.universal or distances.kinds else NOT_MEASURED


def smallest_universal(distances: ClassDistances) -> PairDistance | None:
    """The target that all classes are turned to most easily, or None if none was reached."""
    reached = [trigger for trigger in distances.universal if trigger.reached]
    return min(reached, key=lambda trigger: trigger.distance or 0.0, default=None)


def headline(verdict: Verdict) -> str:
    """The verdict in one word, and in three sentences."""
    words = {0: "The policy passes", 1: "The policy refuses", 3: "The policy could not be evaluated for"}
    counts: list[tuple[Outcome, str]] = [
        ("pass", "passed"),
        ("fail", "failed"),
        ("not_evaluated", "not evaluated"),
        ("not_applicable", "not applicable"),
    ]
    counted = ", ".join(f"{len(verdict.having(outcome))} {word}" for outcome, word in counts if verdict.having(outcome))
    counted = counted or "no rule is switched on"
    said = f"{words[verdict.exit_code]} the model {verdict.stage} hardening: {counted}."
    return f"{verdict.word}. {said} {MEANINGS[verdict.word]}"


def as_text(verdict: Verdict) -> str:
    """The verdict as plain lines: first the notes, so that nobody overlooks them, then the rules and the headline."""
    lines = [f"{OUTCOMES[rule.outcome]:<14}  {rule.name:<24}  {rule.message}" for rule in verdict.rules]
    notes = [f"{'NOTE':<14}  {note}" for note in verdict.notes]
    return "\n".join([*notes, *lines, headline(verdict)]) + "\n"


def as_json(verdict: Verdict) -> str:
    """The verdict as JSON, with ``verdict``, ``passed`` and ``exit_code`` spelt out for scripts."""
    answer = {
        "verdict": verdict.word,
        "passed": verdict.passed,
        "exit_code": verdict.exit_code,
        **verdict.model_dump(mode="json"),
    }
    return json.dumps(answer, indent=1, ensure_ascii=False) + "\n"


def as_junit(verdict: Verdict) -> str:
    """The verdict as JUnit XML, one test case a rule; what was not evaluated is an error."""
    tags: dict[Outcome, str] = {"fail": "failure", "not_evaluated": "error", "not_applicable": "skipped"}
    counts = {
        "tests": len(verdict.rules),
        "failures": len(verdict.having("fail")),
        "errors": len(verdict.having("not_evaluated")),
        "skipped": len(verdict.having("not_applicable")),
    }
    numbers = {key: str(value) for key, value in counts.items()}
    root = ET.Element("testsuites", {"name": "phard gate", **numbers})
    suite = ET.SubElement(root, "testsuite", {"name": f"policy ({verdict.stage} hardening)", **numbers})
    properties = ET.SubElement(suite, "properties")
    ET.SubElement(properties, "property", {"name": "verdict", "value": verdict.word})
    for rule in verdict.rules:
        case = ET.SubElement(suite, "testcase", {"classname": "phard.gate", "name": rule.name, "time": "0"})
        if rule.outcome in tags:
            ET.SubElement(case, tags[rule.outcome], {"message": rule.message})
        else:
            ET.SubElement(case, "system-out").text = rule.message
    if verdict.notes:
        ET.SubElement(suite, "system-out").text = "\n".join(verdict.notes)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def audit_headline(record: AuditRecord, policy: Policy) -> str:
    """What an audit came to, as one sentence; that nothing was found is no praise of the model."""
    place = f"{printable(record.repo)}@{record.commit[:12]}" if record.commit else printable(record.repo)
    beside = f", compared with {printable(record.upstream, 120)}" if record.upstream else ""
    counts = Counter(found.severity for found in record.findings)
    found = [f"{counts[kind]} {kind}{'s' * (counts[kind] > 1)}" for kind in SEVERITIES if counts[kind]]
    if not counts["error"] + counts["warning"]:
        found = ["nothing found by these checks", *found]
    verdict = "refused by the policy" if record.refused_by(policy) else "not refused by the policy"
    return f"{place}{beside}: {', '.join(found)}; {verdict}."


def audit_as_json(record: AuditRecord, policy: Policy) -> str:
    """An audit as JSON, with ``refused`` spelt out for scripts and each finding's meaning beside it."""
    answer = record.model_dump(mode="json")
    for found in answer["findings"]:
        found["meaning"] = findings.MEANINGS[found["id"]]
    return json.dumps({"refused": bool(record.refused_by(policy)), **answer}, indent=1, ensure_ascii=False) + "\n"
