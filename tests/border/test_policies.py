"""Policies that anybody may have written: each ends in one line and the documented code."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from phard_hub.errors import PolicyError
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from tests.border.gating import BROKEN, GOOD, PASSED, REFUSED, UNKNOWN, ended, fuzz
from tests.report_factory import make_report

POLICIES: dict[str, tuple[bytes, int]] = {
    "empty: all defaults": (b"", PASSED),
    "all off": ("\n".join(f'{name} = "off"' for name in Policy.model_fields).encode(), UNKNOWN),
    "only findings": (
        "\n".join(f'{name} = "off"' for name in Policy.model_fields if name != "forbid_findings").encode(),
        UNKNOWN,
    ),
    "no finding is forbidden": (b"forbid_findings = []", PASSED),
    "an unknown rule": (b"min_acuracy = 0.9", BROKEN),
    "a rule in capitals": (b"MIN_ACCURACY = 0.9", BROKEN),
    "a number as text": (b'min_accuracy = "0.9"', BROKEN),
    "a truth": (b"min_accuracy = true", BROKEN),
    "percent": (b"min_accuracy = 90", BROKEN),
    "below 0": (b"max_accuracy_loss = -1", BROKEN),
    "nan": (b"min_accuracy = nan", BROKEN),
    "inf": (b"max_accuracy_loss = inf", BROKEN),
    "null": (b"min_accuracy = null", BROKEN),
    "off in capitals": (b'min_accuracy = "OFF"', BROKEN),
    "a severity of its own": (b'forbid_findings = ["fatal"]', BROKEN),
    "a severity as text": (b'forbid_findings = "error"', BROKEN),
    "a list for a number": (b"min_accuracy = [0.9]", BROKEN),
    "a table for a number": (b"[min_accuracy]\nvalue = 0.9", BROKEN),
    "a date": (b"min_accuracy = 2026-11-21", BROKEN),
    "twice": (b"min_accuracy = 0.9\nmin_accuracy = 0.1", BROKEN),
    "hexadecimal": (b"min_pairs_measured = 0x" + b"f" * 10_000, BROKEN),
    "10,000 digits": (b"min_pairs_measured = " + b"9" * 10_000, BROKEN),
    "nested tables": (b"[" + b".".join([b"a"] * 7_000) + b"]\nx = 1", BROKEN),
    "nested lists": (b"min_accuracy = " + b"[" * 7_000 + b"]" * 7_000, BROKEN),
    "nested in lines": (b"min_accuracy = " + b"{a = " * 2_500 + b"1" + b"}" * 2_500, BROKEN),
    "quadratic in its dots": (b"a." * 500_000 + b"a = 1", BROKEN),
    "no TOML": (b"min_accuracy: 0.9", BROKEN),
    "JSON": (b'{"min_accuracy": 0.9}', BROKEN),
    "no UTF-8": (b"\xff\xfem\x00i\x00n", BROKEN),
    "zeros": (bytes(100), BROKEN),
    "an escape in a name": (b'"\\u001b]0;owned\\u0007" = 1', BROKEN),
    "a long name": (b'"' + b"x" * 15_000 + b'" = 1', BROKEN),
    "too strict for it": (b"min_mean_distance = 200", REFUSED),
    "not measured": (b"min_pairs_reached = 1.0", UNKNOWN),
}


@pytest.mark.parametrize("what", POLICIES)
def test_policies(what: str, tmp_path: Path) -> None:
    content, expected = POLICIES[what]
    (tmp_path / "report.json").write_text(GOOD)
    (tmp_path / "policy.toml").write_bytes(content)
    code, said = ended(tmp_path / "report.json", tmp_path / "policy.toml")
    assert code == expected, said
    if what == "no finding is forbidden":
        assert "no audit finding is forbidden" in said
    if expected == UNKNOWN and what != "not measured":
        assert "no number was looked at" in said


TOML = some.one_of(
    some.text(max_size=60),
    some.lists(
        some.tuples(
            some.sampled_from([*Policy.model_fields, "a.b", '"x"']),
            some.sampled_from(["0", "1e5", "-1", "0x1F", '"off"', "[]", '["error"]', "{}", "nan", "1979-05-27"])
            | some.integers().map(str)
            | some.floats().map(str)
            | some.text(max_size=5).map(repr),
        ),
        max_size=4,
    ).map(lambda rows: "\n".join(f"{name} = {value}" for name, value in rows)),
)


@given(text=TOML)
@fuzz(200)
def test_any_text_is_a_policy_or_one_line(text: str) -> None:
    try:
        gate(make_report(), Policy.parse(text))
    except PolicyError as error:
        assert "\n" not in error.problem.replace("\\n", "")  # noqa: PT017 - the point is what is said
