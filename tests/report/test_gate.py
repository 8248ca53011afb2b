"""The gate: each rule at its limit, and what happens where a number is missing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from phard_hub.errors import ReportError
from phard_hub.report.deployed import Deployed
from phard_hub.report.gate import RuleResult, gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Finding, Report, Source
from phard_hub.report.rules import CHANGE_RULES, RULES, rule_help
from tests.report_factory import GREY, LABELS, change_state, make_distances, make_pair, make_rate, make_report

EVERYTHING = [(source, target) for source in range(4) for target in range(4) if source != target]


def only(**rules: Any) -> Policy:
    """A policy with these rules and no other."""
    return Policy.model_validate({**dict.fromkeys(Policy.model_fields), **rules})


def judge(report: Report, **rules: Any) -> RuleResult:
    (result,) = [result for result in gate(report, only(**rules)).rules if result.name != "any_number"]
    return result


def with_after(**changes: Any) -> Report:
    report = make_report()
    assert report.after is not None
    return make_report(after=change_state(report.after, **changes))


def with_both(**changes: Any) -> Report:
    report = make_report()
    assert report.after is not None
    return make_report(before=change_state(report.before, **changes), after=change_state(report.after, **changes))


def test_report_survives_json() -> None:
    report = make_report()
    assert Report.model_validate_json(report.to_json()) == report


def test_default_policy_passes_the_hardened_and_refuses_the_given_model() -> None:
    after, before = gate(make_report(), Policy()), gate(make_report(), Policy(), stage="before")
    assert (after.stage, after.passed, after.exit_code) == ("after", True, 0)
    assert (before.stage, before.passed, before.exit_code) == ("before", False, 1)
    assert {rule.name for rule in before.having("not_applicable")} == CHANGE_RULES
    assert gate(make_report(after=None), Policy()).stage == "before"


@pytest.mark.parametrize(
    ("rules", "outcome", "message"),
    [
        ({"max_accuracy_loss": 0.5}, "pass", "accuracy loss 0.5 <= 0.5 points (1000 images)"),
        ({"max_accuracy_loss": 0.4}, "fail", "accuracy loss 0.5 > 0.4 points (1000 images)"),
        ({"max_robust_accuracy_loss": 0.0}, "pass", "robust accuracy loss -11.0 <= 0.0 points (PGD-20, Linf 2/255)"),
        ({"min_accuracy": 0.92}, "fail", "accuracy 91.5 < 92.0 % (1000 images)"),
        ({"min_robust_accuracy": 0.41}, "pass", "robust accuracy 41.0 >= 41.0 % (PGD-20, Linf 2/255, 1000 images)"),
        ({"min_smallest_distance": 20.0}, "fail", "smallest class distance 12.4 < 20.0 grey levels (dog -> frog)"),
        ({"min_pairs_measured": 5}, "pass", "12 pairs measured, 5 needed"),
        ({"min_pairs_measured": 500}, "pass", "12 pairs measured, 12 needed"),
        ({"min_pairs_reached": 0.95}, "not_evaluated", "pairs reached 91.7 < 95.0 % (11 of 12)"),
        ({"forbid_findings": ["error", "note"]}, "fail", "1 audit findings of severity error or note: no-license"),
        ({"forbid_findings": ["error"]}, "pass", "no audit finding of severity error"),
    ],
)
def test_rules_at_their_limits(rules: dict[str, Any], outcome: str, message: str) -> None:
    result = judge(make_report(), **rules)
    assert (result.name, result.outcome) == (next(iter(rules)), outcome)
    assert result.message.startswith(message)


def test_rounding_does_not_refuse() -> None:
    report = make_report()
    before = change_state(report.before, accuracy=make_rate(0.90))
    report = make_report(before=before, after=change_state(before, accuracy=make_rate(0.89), weights_sha256="b" * 64))
    assert 100 * (0.90 - 0.89) > 1
    assert judge(report, max_accuracy_loss=1.0).outcome == "pass"


def test_a_message_never_contradicts_itself() -> None:
    report = make_report()
    before = change_state(report.before, accuracy=make_rate(0.9, 100_000))
    after = change_state(report.before, accuracy=make_rate(0.79996, 100_000), weights_sha256="b" * 64)
    result = judge(make_report(before=before, after=after), min_accuracy=0.8)
    assert result.message.startswith("accuracy 79.996 < 80.000 %")


def test_mean_distance_counts_the_pairs_it_leaves_out() -> None:
    result = judge(make_report(), min_mean_distance=8.0)
    assert "over 11 of 12 pairs; the search did not reach the other 1" in result.message


def test_nothing_reached_is_not_evaluated() -> None:
    nothing = tuple(make_pair(None, target, None) for target in range(4))
    distances = make_distances(unreached=EVERYTHING).model_copy(
        update={"universal": nothing, "kinds": {"colour": nothing}}
    )
    report = with_after(distances=distances)
    for name in ("min_mean_distance", "min_smallest_distance", "min_distance_increase", "min_pairs_reached"):
        assert judge(report, **{name: 0.1}).outcome == "not_evaluated"
    verdict = gate(report, Policy())
    assert (verdict.passed, verdict.exit_code) == (False, 3)


def test_a_small_universal_trigger_is_the_smallest_distance() -> None:
    distances = make_distances(3.0)
    trigger = make_pair(None, 3, 0.1)
    report = with_after(distances=distances.model_copy(update={"universal": (*distances.universal[:3], trigger)}))
    result = judge(report, min_smallest_distance=4.0)
    assert result.outcome == "fail"
    assert result.value == pytest.approx(0.1 * GREY)
    assert "any class -> horse" in result.message


def test_increase_needs_the_same_search_both_times() -> None:
    distances = make_distances(2.2)
    weaker = distances.model_copy(update={"settings": {"steps": 3, "seed": 7}})
    other_seed = distances.model_copy(update={"settings": {"steps": 300, "seed": 7}})
    result = judge(with_after(distances=weaker), min_distance_increase=0.5)
    assert (result.outcome, "different steps" in result.message) == ("not_evaluated", True)
    assert judge(with_after(distances=other_seed), min_distance_increase=0.5).outcome == "pass"


def test_missing_robust_accuracy_is_not_evaluated() -> None:
    report = with_after(robust_accuracy=None)
    assert judge(report, min_robust_accuracy=0.1).outcome == "not_evaluated"
    assert judge(report, max_robust_accuracy_loss=1.0).outcome == "not_evaluated"
    other = with_after(robust_attack="FGSM")
    assert judge(other, max_robust_accuracy_loss=1.0).outcome == "not_evaluated"


def test_each_known_attack_is_judged_by_the_worst() -> None:
    report = make_report()
    (attack,) = report.before.evaluation.attacks
    attacks = tuple(
        attack.model_copy(update={"name": name, "success": make_rate(value)})
        for name, value in [("blend", 0.01), ("warp", 0.3), ("filter", 0.06)]
    )
    result = judge(with_both(attacks=attacks), max_attack_success=0.05)
    assert (result.outcome, result.value) == ("fail", 0.3)
    assert result.message.startswith("attack success of warp 30.0 > 5.0 %")
    assert "2 over the limit" in result.message
    untried = (*attacks, attack.model_copy(update={"success": make_rate(0.0, n=0)}))
    assert judge(with_both(attacks=untried), max_attack_success=0.05).outcome == "not_evaluated"
    assert judge(with_both(attacks=()), max_attack_success=0.05).outcome == "not_applicable"


def test_a_rule_that_applied_before_applies_after() -> None:
    """A report without the attacks that were known passed; no such report can be read, and none is judged as if."""
    report = make_report()
    assert report.after is not None
    forgotten = report.model_copy(update={"after": change_state(report.after, attacks=())})
    result = judge(forgotten, max_attack_success=0.05)
    assert (result.outcome, "were not tried after it" in result.message) == ("not_evaluated", True)
    with pytest.raises(ValueError, match="the known triggers before and after hardening differ"):
        Report.from_json(forgotten.to_json().encode())


def test_a_policy_without_rules_passes_nothing() -> None:
    verdict = gate(make_report(), only())
    assert ([rule.name for rule in verdict.rules], verdict.passed, verdict.exit_code) == (["any_number"], False, 3)


def test_findings_alone_pass_nothing() -> None:
    """A policy under which no number was looked at passed."""
    verdict = gate(make_report(), only(forbid_findings=["error"]))
    assert [(rule.name, rule.outcome) for rule in verdict.rules] == [
        ("any_number", "not_evaluated"),
        ("forbid_findings", "pass"),
    ]
    assert verdict.exit_code == 3


def test_an_empty_list_of_findings_is_in_the_verdict() -> None:
    """It switched the rule off without a line."""
    result = judge(make_report(), forbid_findings=[])
    assert (result.outcome, result.message) == (
        "not_applicable",
        "the list is empty: no audit finding is forbidden",
    )


def test_failing_outweighs_not_evaluated() -> None:
    report = with_after(robust_accuracy=None, accuracy=make_rate(0.1))
    assert gate(report, Policy()).exit_code == 1


def test_weights_must_be_those_of_the_report() -> None:
    files = {"config.json": "c" * 64, "model.safetensors": "b" * 64}
    report = make_report(source=Source(repo="org/model", files=files | {"model.safetensors": "0" * 64}))
    assert gate(report, Policy(), deployed=Deployed(place="release", files=files)).passed
    wrong = gate(report, Policy(), deployed=Deployed(place="release", files=files | {"model.safetensors": "a" * 64}))
    assert [rule.name for rule in wrong.having("fail")] == ["same_weights"]


def test_stage_that_is_not_there() -> None:
    with pytest.raises(ReportError, match="no classifier after hardening"):
        gate(make_report(after=None), Policy(), stage="after")


def test_a_model_that_was_only_measured_gets_no_clean_bill() -> None:
    """The verdict of such a model read like that of a hardened one."""
    report = make_report(after=None, before=change_state(make_report().before, attacks=()))
    first = gate(report, Policy()).notes[0]
    assert first == (
        "This model was measured, not hardened; no trigger was known to try on it; rules that did not apply: "
        "max_accuracy_loss, max_robust_accuracy_loss, min_distance_increase, max_attack_success."
    )
    assert "no trigger" not in gate(make_report(after=None), Policy()).notes[0]
    assert "before it was hardened" in gate(make_report(), Policy(), stage="before").notes[0]
    assert not any("hardened" in note for note in gate(make_report(), Policy()).notes)


def test_names_from_files_cannot_break_a_message() -> None:
    labels = ("c\x1b[31mat", "d\nog", *LABELS[2:])
    finding = Finding(id="x\n", severity="error", file="\u202eevil.bin", evidence="", advice="")
    report = with_both(distances=make_distances(labels=labels)).model_copy(update={"findings": (finding,)})
    for rule in gate(report, Policy(min_smallest_distance=200.0)).rules:
        assert rule.message.isprintable()


LEVELS = ("max_universal_success_at", "min_certified_accuracy")
"""Rules that are asked once for each entry of a table."""


def test_every_rule_has_a_policy_field_and_a_meaning() -> None:
    assert set(RULES) | {"forbid_findings", "require_signature", *LEVELS} == set(Policy.model_fields)
    for name in [*RULES, "forbid_findings", "same_weights", "same_files", "require_signature"]:
        assert rule_help(name).endswith(".")


def test_gate_imports_nothing_heavy() -> None:
    code = (
        "import sys, phard_hub.report.gate, phard_hub.report.views.formats\n"
        "print(*{'torch', 'huggingface_hub', 'numpy', 'matplotlib', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
