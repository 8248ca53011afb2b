"""Classes that stand out: by how much, by which kind of change, and what the policies say of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from phard_hub.errors import PolicyError
from phard_hub.report.distances import ClassDistances, PairDistance
from phard_hub.report.gate import gate, policy_for
from phard_hub.report.outliers import outliers
from phard_hub.report.policy import POLICIES, Policy
from phard_hub.report.record import Report
from phard_hub.report.rules import Judgement, Outcome
from phard_hub.report.statistics import rate
from phard_hub.report.views.formats import as_text, summary_rows
from phard_hub.report.views.plots import AttackReach, success_curves
from tests.report_factory import GREY, make_distances, make_report, make_state

LABELS = ("cat", "dog", "frog", "horse", "ship", "truck")


def universal(levels: Sequence[float | None], spread: float = 0.05, n: int = 100) -> tuple[PairDistance, ...]:
    """Universal triggers that need these grey levels; None for one that reaches nothing."""
    return tuple(
        PairDistance(
            source=None,
            target=target,
            reached=level is not None,
            distance=None if level is None else level / GREY,
            low=None if level is None else level / GREY * (1 - spread),
            high=None if level is None else level / GREY * (1 + spread),
            rms=level,
            success=rate(n if level is not None else 0, n),
            at=tuple(rate(n if level is not None and level <= size else n // 10, n) for size in (5, 10, 20, 30)),
        )
        for target, level in enumerate(levels)
    )


def measured(
    levels: Sequence[float | None],
    kinds: dict[str, Sequence[float | None]] | None = None,
    spread: float = 0.05,
    n: int = 100,
) -> Report:
    found = make_distances(labels=LABELS).model_copy(
        update={
            "universal": universal(levels, spread, n),
            "kinds": {kind: universal(each, spread, n) for kind, each in (kinds or {}).items()},
        }
    )
    found = ClassDistances.from_json(found.model_dump_json().encode())
    return make_report(before=make_state(0.92, 0.3, 0.0, found, "a" * 64), after=None)


def said(report: Report, limit: float = 1.5) -> Judgement:
    (rule,) = (rule for rule in gate(report, Policy(max_outlier=limit)).rules if rule.name == "max_outlier")
    return Judgement(rule.outcome, rule.value, rule.message)


def test_a_class_that_is_easy_to_reach_stands_out() -> None:
    report = measured((6, 7, 2.5, 8, 7, 6))
    worst = outliers(report.before.distances)[0]
    assert (worst.target, worst.levels, worst.others) == (2, 2.5, 7)
    assert worst.times == pytest.approx(2.8)
    assert worst.least == pytest.approx(2.8 * 0.95 / 1.05)
    judged = said(report)
    assert judged.outcome == "fail"
    assert judged.message.startswith("frog needs 2.5 grey levels, the others 7.0 (median): 2.8 times more")
    assert ("Class that stands out most", judged.message.partition(";")[0], "") in summary_rows(report)


def test_several_targets_do_not_hide_each_other() -> None:
    stand_out = [each.target for each in outliers(measured((2, 7, 2.1, 8, 7, 6)).before.distances) if each.times > 1.5]
    assert stand_out == [0, 2]


def test_a_kind_shows_what_all_parts_hide() -> None:
    report = measured((6, 6, 6, 6, 6, 6), {"colour": (40, 45, 42, 12, 50, 44), "latent": (30, 80, 90, 70, 60, 80)})
    assert "horse needs 12.0 grey levels of colour alone, the others 44.0 (median)" in said(report).message
    assert said(report).outcome == "fail"


def test_what_is_never_reached_counts_as_the_largest_size() -> None:
    report = measured((6, 6, 6, 6, 6, 6), {"warp": (None, 4, None, None, None, None)})
    worst = outliers(report.before.distances)[0]
    assert (worst.kind, worst.target, worst.others) == ("warp", 1, 30)


CASES: dict[str, tuple[Report, Outcome]] = {
    "alike": (measured((6, 7, 5.5, 8, 7, 6)), "pass"),
    "much easier": (measured((6, 7, 2, 8, 7, 6)), "fail"),
    "easier, perhaps": (measured((6, 7, 4, 8, 7, 6), spread=0.3), "pass"),
    "few images": (measured((6, 7, 2, 8, 7, 6), n=9), "not_evaluated"),
    "few images, alike": (measured((6, 7, 5.5, 8, 7, 6), n=9), "pass"),
    "only by large changes": (measured((60, 70, 25, 80, 70, 60)), "pass"),
    "nothing reached": (measured((None,) * 6), "not_evaluated"),
}


@pytest.mark.parametrize(("report", "outcome"), CASES.values(), ids=CASES)
def test_the_rule_has_three_answers(report: Report, outcome: Outcome) -> None:
    assert said(report).outcome == outcome


def test_three_classes_have_no_others() -> None:
    found = make_distances(labels=("cat", "dog", "frog"))
    report = make_report(before=make_state(0.92, 0.3, 0.0, found, "a" * 64), after=None)
    assert said(report).outcome == "not_applicable"
    assert outliers(found) == ()


def test_success_at_a_size_is_limited() -> None:
    report = measured((6, 7, 12, 8, 7, 6))
    verdict = gate(report, Policy(max_universal_success_at={"5": 0.2, "10": 0.5}))
    rules = [rule for rule in verdict.rules if rule.name == "max_universal_success_at"]
    assert [(rule.outcome, rule.value, rule.limit) for rule in rules] == [("pass", 0.1, 0.2), ("fail", 1.0, 0.5)]
    assert "universal triggers of 10 grey levels 100.0 > 50.0 %" in rules[1].message
    assert Policy.parse(Policy(max_universal_success_at={"20": 0.5}).to_toml()).max_universal_success_at == {"20": 0.5}
    for wrong in ("{ 15 = 0.5 }", "{ 20 = 5 }", "0.5", "{ 20 = true }"):
        with pytest.raises(PolicyError, match="max_universal_success_at"):
            Policy.parse(f"max_universal_success_at = {wrong}")


def test_a_model_that_was_only_measured_is_judged_by_what_is_asked_of_any() -> None:
    report = measured((6, 7, 5.5, 8, 7, 6))
    assert policy_for(report) is POLICIES["deploy"]
    assert policy_for(make_report()) is POLICIES["hardened"]
    verdict = gate(report)
    asked = {rule.name for rule in verdict.rules}
    assert "max_outlier" in asked
    assert not asked & {"min_mean_distance", "min_smallest_distance", "min_pairs_measured"}
    assert "max_outlier" in as_text(verdict)


def test_an_attack_is_out_of_reach_only_if_universal_triggers_of_its_size_do_next_to_nothing() -> None:
    easy, hard = (measured((level,) * 6).before.distances for level in (9, 25))
    reach = [AttackReach("blend", 6, 1, found.model_copy(update={"pairs": ()})).out_of_reach for found in (easy, hard)]
    assert reach == [False, True]
    assert AttackReach("blend", 40, 1, hard).out_of_reach is None or not AttackReach("blend", 40, 1, hard).out_of_reach


def test_curves_are_drawn_of_both_states() -> None:
    assert len(success_curves(make_report()).axes) == 2
    assert len(success_curves(make_report(after=None)).axes) == 1
