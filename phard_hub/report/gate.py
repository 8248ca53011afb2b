"""The gate: what a policy says about a report.

A rule answers pass, fail, not evaluated or not applicable. What cannot be evaluated refuses: a gate
that lets the unknown pass is no gate. This module needs no torch, so it starts at once on a deploy
runner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from phard_hub.errors import ReportError
from phard_hub.report.base import Record
from phard_hub.report.deployed import SIGNATURE_NAME, Deployed
from phard_hub.report.policy import POLICIES, Policy
from phard_hub.report.record import Report
from phard_hub.report.rules import (
    CHANGE_RULES,
    RULES,
    Case,
    Judgement,
    Outcome,
    Rule,
    any_number,
    forbid_findings,
    max_universal_success_at,
    min_certified_accuracy,
    require_signature,
    same_files,
    same_weights,
)

Stage = Literal["before", "after"]
Word = Literal["REJECT", "CANNOT-CERTIFY", "HARDENED"]
"""What a verdict comes to. There is no word for a model that has nothing to hide, because no method can tell."""
MEANINGS: Mapping[Word, str] = {
    "REJECT": "A rule refuses it.",
    "CANNOT-CERTIFY": "What was looked at neither refuses nor certifies it.",
    "HARDENED": "It was hardened against what is measured here, which certifies nothing beyond these numbers.",
}


class RuleResult(Record):
    """What one rule says, with the number it judged and its limit (both in the unit of the policy)."""

    name: str
    outcome: Outcome
    value: float | None
    limit: float | None
    message: str


class Verdict(Record):
    """What a policy says about one stage (before or after hardening) of a report."""

    stage: Stage
    rules: tuple[RuleResult, ...]
    notes: tuple[str, ...] = Field(default=(), description="what the verdict does not rest on, one sentence each")

    def having(self, outcome: Outcome) -> tuple[RuleResult, ...]:
        """The rules that came to this outcome."""
        return tuple(rule for rule in self.rules if rule.outcome == outcome)

    @property
    def exit_code(self) -> int:
        """0 passed, 1 refused, 3 could not be evaluated (which includes that no rule was applied)."""
        if self.having("fail"):
            return 1
        return 3 if self.having("not_evaluated") or not self.having("pass") else 0

    @property
    def word(self) -> Word:
        """The headline: refused, or hardened and passed, or neither, as all that was only measured."""
        if self.exit_code == 1:
            return "REJECT"
        return "HARDENED" if self.passed and self.stage == "after" else "CANNOT-CERTIFY"

    @property
    def passed(self) -> bool:
        """Whether at least one rule passed, and none failed or could not be evaluated."""
        return self.exit_code == 0


def policy_for(report: Report) -> Policy:
    """The policy that a report is judged by where nobody gives one: what hardening promises, if it was hardened."""
    return POLICIES["deploy" if report.after is None else "hardened"]


def gate(
    report: Report, policy: Policy | None = None, *, stage: Stage | None = None, deployed: Deployed | None = None
) -> Verdict:
    """Judge a report by a policy, and whether the report is about what will be deployed.

    Args:
        report: what was measured.
        policy: the limits; a rule that is switched off is not in the verdict. By default `policy_for` the report.
        stage: the classifier to judge; by default the hardened one if there is one. Before hardening,
            rules about change are not applicable.
        deployed: what was found of the files about to be deployed; the report must be about them. Without it, the
            verdict is about the report alone, and says so.

    Raises:
        ReportError: ``stage`` is "after" and the report has no hardened classifier.
    """
    policy = policy or policy_for(report)
    stage = stage or ("after" if report.after else "before")
    state = report.after if stage == "after" else report.before
    if state is None:
        raise ReportError("The report has no classifier after hardening.", advice="Judge the stage `before`.")
    case = Case(report, state)
    results = [
        _apply(name, rule, case, limit) for name, rule in RULES.items() if (limit := getattr(policy, name)) is not None
    ]
    if all(result.outcome == "not_applicable" for result in results):
        results.append(_result("any_number", any_number(), None))
    for rule, limits in (
        (max_universal_success_at, policy.max_universal_success_at),
        (min_certified_accuracy, policy.min_certified_accuracy),
    ):
        each = sorted((limits or {}).items(), key=lambda entry: float(entry[0]))
        results += [_result(rule.__name__, rule(case, at, limit), limit) for at, limit in each]
    if policy.forbid_findings is not None:
        results.append(_result("forbid_findings", forbid_findings(case, policy.forbid_findings), 0))
    results += _about_files(case, policy, deployed)
    notes = (*_not_hardened(case, results), *report.warnings, *_notes(policy, deployed))
    return Verdict(stage=stage, rules=tuple(results), notes=notes)


def _about_files(case: Case, policy: Policy, deployed: Deployed | None) -> Iterator[RuleResult]:
    """The rules about what will be deployed."""
    if deployed is not None:
        yield _result("same_weights", same_weights(case, deployed), None)
        yield _result("same_files", same_files(case, deployed), None)
    if policy.require_signature is not None:
        yield _result("require_signature", require_signature(case, deployed), None)


def _not_hardened(case: Case, results: Sequence[RuleResult]) -> Iterator[str]:
    """That the judged model was only measured, and what was not asked of it for that reason."""
    if case.state is not case.report.before:
        return
    said = [
        "This is the model before it was hardened" if case.report.after else "This model was measured, not hardened"
    ]
    if not case.state.evaluation.attacks:
        said.append("no trigger was known to try on it")
    if unasked := [result.name for result in results if result.outcome == "not_applicable"]:
        said.append(f"rules that did not apply: {', '.join(unasked)}")
    yield f"{'; '.join(said)}."


def _notes(policy: Policy, deployed: Deployed | None) -> Iterator[str]:
    """What a reader could take this verdict for, and it is not."""
    if deployed is None:
        yield "No weights were looked at: this verdict is about a report alone, whatever model lies beside it."
    if policy.require_signature is None:
        signed = deployed is not None and deployed.signature.state != "absent"
        what = f"{SIGNATURE_NAME} was not checked, as the policy names no key" if signed else "Nothing here is signed"
        yield f"{what}: whoever controls the {'folder' if deployed else 'report'} controls this verdict."


def _apply(name: str, rule: Rule, case: Case, limit: float) -> RuleResult:
    """Ask one rule, unless it is about change and nothing was changed."""
    if name in CHANGE_RULES and case.state is case.report.before:
        judgement = Judgement("not_applicable", None, "about what hardening changed; this is the model before it")
    else:
        judgement = rule(case, limit)
    return _result(name, judgement, limit)


def _result(name: str, judgement: Judgement, limit: float | None) -> RuleResult:
    return RuleResult(name=name, limit=limit, **judgement._asdict())
