"""What votes under noise come to in the policy, the gate and the views."""

from __future__ import annotations

import pytest

from phard_hub.errors import PolicyError
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Report
from phard_hub.report.smoothed import RADII, Certified, Smoothed
from phard_hub.report.views.formats import summary_rows
from tests.report_factory import make_rate, make_report


def voted(*shares: float, sigma: float = 0.25) -> Smoothed:
    return Smoothed(
        sigma=sigma,
        votes=1000,
        guesses=100,
        alpha=0.001,
        bits=6,
        shift=0,
        accuracy=make_rate(0.85, 500),
        abstained=make_rate(0.02, 500),
        at=tuple(Certified(radius=r, accuracy=make_rate(s, 500)) for r, s in zip(RADII, shares, strict=True)),
        seconds=3.0,
    )


def report() -> Report:
    plain = make_report()
    assert plain.after
    before = plain.before.model_copy(update={"smoothed": voted(0.3, 0.2, 0.1, 0.0)})
    after = plain.after.model_copy(update={"smoothed": voted(0.8, 0.78, 0.5, 0.2)})
    return make_report(before=before, after=after)


def test_the_policy_is_written_as_people_write_it() -> None:
    plain = Policy.parse("min_certified_accuracy = { 0.25 = 0.4, 0.0895 = 0.7 }")
    assert plain.min_certified_accuracy == {"0.25": 0.4, "0.0895": 0.7}
    assert Policy.parse('min_certified_accuracy = { "0.25" = 0.4, "0.0895" = 0.7 }') == plain
    assert Policy.parse(plain.to_toml()) == plain


@pytest.mark.parametrize("wrong", ["{ 0.3 = 0.4 }", "{ 0.25 = 4.0 }", "{ 0.25 = true }", "{ 1 = 0.5 }", "0.4"])
def test_and_no_other_radius_or_share_is_taken(wrong: str) -> None:
    with pytest.raises(PolicyError, match="min_certified_accuracy"):
        Policy.parse(f"min_certified_accuracy = {wrong}")


def test_the_gate_asks_for_each_radius() -> None:
    policy = Policy(min_certified_accuracy={"0.25": 0.5, "0.5": 0.4})
    rules = [rule for rule in gate(report(), policy).rules if rule.name == "min_certified_accuracy"]
    assert [rule.outcome for rule in rules] == ["pass", "fail"]
    assert rules[0].message == "certified accuracy within L2 0.25 50.0 >= 50.0 % (1000 votes, sigma 0.25, 500 images)"
    assert gate(report(), policy).exit_code == 1


def test_without_votes_it_is_not_evaluated() -> None:
    verdict = gate(make_report(), Policy(min_certified_accuracy={"0.25": 0.1}))
    assert verdict.exit_code == 3
    assert "--certify" in verdict.having("not_evaluated")[0].message


def test_the_table_has_a_row_for_each_radius() -> None:
    rows = {row.metric: (row.before, row.after) for row in summary_rows(report())}
    assert rows["Accuracy of the vote (1000 votes, sigma 0.25)"][1].startswith("85.00 %")
    assert rows["Certified accuracy (L2 0.25)"] == ("10.00 % [7.67, 12.94], n = 500", "50.00 % [45.63, 54.37], n = 500")
    assert rows["Certified accuracy (L2 0.5)"][0] == "<= 0.6 % (0 of 500)"
    assert not any("Certified" in row.metric for row in summary_rows(make_report()))


def test_both_are_from_the_same_votes_or_there_are_none() -> None:
    plain = make_report()
    assert plain.after
    for other in (None, voted(0.8, 0.7, 0.5, 0.2, sigma=0.5)):
        before = plain.before.model_copy(update={"smoothed": voted(0.3, 0.2, 0.1, 0.0)})
        with pytest.raises(ValueError, match="votes under noise before and after hardening differ"):
            make_report(before=before, after=plain.after.model_copy(update={"smoothed": other}))


def test_it_is_read_back() -> None:
    assert Report.from_json(report().to_json().encode()) == report()
