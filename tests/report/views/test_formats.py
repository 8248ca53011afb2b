"""Views of a report and of a verdict: rows, text, JSON, JUnit."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped

from phard_hub.report.gate import RuleResult, Verdict
from phard_hub.report.views.formats import as_json, as_junit, as_text, summary_rows
from phard_hub.report.views.sarif import as_sarif, on_hub
from tests.report_factory import change_state, make_distances, make_report

RULES = (
    RuleResult(name="min_accuracy", outcome="pass", value=0.9, limit=0.8, message="accuracy 90.0 >= 80.0 %"),
    RuleResult(name="min_mean_distance", outcome="fail", value=7.9, limit=8, message="mean class distance 7.9 < 8.0"),
    RuleResult(name="min_robust_accuracy", outcome="not_evaluated", value=None, limit=0.3, message="not measured <&>"),
    RuleResult(name="max_accuracy_loss", outcome="not_applicable", value=None, limit=1, message="about change"),
)
MIXED = Verdict(stage="after", rules=RULES)
VERDICTS = [MIXED, Verdict(stage="before", rules=RULES[:1]), Verdict(stage="after", rules=())]


def test_rows_tell_both_states_with_their_doubt() -> None:
    rows = {row.metric: row for row in summary_rows(make_report())}
    assert rows["Accuracy"].before == "92.00 % [90.15, 93.53], n = 1000"
    assert rows["Attack success (blend -> dog)"].after == "<= 0.3 % (0 of 1000)"
    assert rows["The same on a model without it (blend -> dog)"].after == "not measured"
    assert rows["Pairs reached"][1:] == ("12 of 12", "11 of 12")
    assert rows["Pairs no longer reached"].after == "1"
    assert rows["Smallest class distance"].after.endswith("(dog -> frog)")
    assert "[8.5, 10.3] grey levels" in rows["Mean class distance"].before


def test_rows_without_hardening_or_numbers() -> None:
    report = make_report()
    assert all(row.after == "" for row in summary_rows(make_report(after=None)))
    empty = make_distances(unreached=[(s, t) for s in range(4) for t in range(4)]).model_copy(update={"universal": ()})
    before = change_state(report.before, robust_accuracy=None, distances=empty)
    rows = {row.metric: row.before for row in summary_rows(make_report(before=before))}
    assert rows["Robust accuracy (PGD-20, Linf 2/255)"] == "not measured"
    assert rows["Attack success (blend -> dog)"].startswith("99.00 %")
    assert rows["Mean class distance"] == "no pair reached"
    assert rows["Smallest class distance"] == "none reached"


def test_text_ends_with_the_verdict() -> None:
    lines = as_text(MIXED).splitlines()
    assert len(lines) == 5
    assert lines[1].split(maxsplit=2)[:2] == ["FAIL", "min_mean_distance"]
    assert lines[-1] == (
        "REJECT. The policy refuses the model after hardening: 1 passed, 1 failed, 1 not evaluated, 1 not applicable. "
        "A rule refuses it."
    )
    assert as_text(MIXED.model_copy(update={"notes": ("One.",)})).startswith("NOTE            One.\n")
    assert "no rule is switched on" in as_text(VERDICTS[2])


@pytest.mark.parametrize("verdict", VERDICTS)
def test_no_view_promises_safety(verdict: Verdict) -> None:
    views = as_text(verdict) + as_json(verdict) + as_junit(verdict) + as_sarif(verdict, on_hub("a/b", "c", "r.json"))
    # "clean test images" are images without a trigger
    views = views.replace("clean test images", "")
    assert not any(word in views.lower() for word in ("clean", "safe", "backdoor"))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_json_spells_out_the_answer(verdict: Verdict) -> None:
    answer = json.loads(as_json(verdict))
    assert (answer.pop("passed"), answer.pop("exit_code")) == (verdict.passed, verdict.exit_code)
    assert answer.pop("verdict") == verdict.word
    assert Verdict.model_validate_json(json.dumps(answer)) == verdict


PASSED = (RULES[0],)
WORDS = [
    (Verdict(stage="after", rules=PASSED), "HARDENED"),
    (Verdict(stage="before", rules=PASSED), "CANNOT-CERTIFY"),
    (Verdict(stage="after", rules=(RULES[0], RULES[2])), "CANNOT-CERTIFY"),
    (Verdict(stage="after", rules=()), "CANNOT-CERTIFY"),
    (Verdict(stage="before", rules=RULES[:2]), "REJECT"),
    (MIXED, "REJECT"),
]


@pytest.mark.parametrize(("verdict", "word"), WORDS)
def test_one_word_leads_in_every_view(verdict: Verdict, word: str) -> None:
    """Nothing but a hardened model that passed is called hardened, and exit codes are as they were."""
    assert verdict.word == word
    assert as_text(verdict).splitlines()[-1].startswith(f"{word}. The policy ")
    assert json.loads(as_json(verdict))["verdict"] == word
    named = ET.fromstring(as_junit(verdict)).findall("testsuite/properties/property")
    assert [(each.get("name"), each.get("value")) for each in named] == [("verdict", word)]
    assert json.loads(as_sarif(verdict, on_hub("a/b", "c", "r.json")))["runs"][0]["properties"] == {"verdict": word}


def test_junit_has_one_case_a_rule() -> None:
    """As read by a parser that takes what CI servers take."""
    read = JUnitXml.fromstring(as_junit(MIXED).encode())
    (suite,) = read
    for counts in (read, suite):
        assert (counts.tests, counts.failures, counts.errors, counts.skipped) == (4, 1, 1, 1)
    cases = list(suite)
    assert [case.name for case in cases] == [rule.name for rule in RULES]
    assert [type(answer) for case in cases for answer in case.result] == [Failure, Error, Skipped]
    assert cases[0].system_out == "accuracy 90.0 >= 80.0 %"
    assert cases[2].result[0].message == "not measured <&>"


def test_junit_tells_the_notes() -> None:
    root = ET.fromstring(as_junit(MIXED.model_copy(update={"notes": ("One.", "Two.")})))
    assert root.findtext("testsuite/system-out") == "One.\nTwo."
