"""The table of findings: complete, in order, and explained by the command."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from phard_hub.report.findings import MEANINGS, SEVERITIES, AuditRecord, error, note, warning
from phard_hub.report.policy import Policy
from tests.command import Phard

ROOT = Path(__file__).parents[2]


def test_the_command_explains_them(phard: Phard) -> None:
    done = phard("audit", "--list")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [f"{id_}  {meaning}" for id_, meaning in MEANINGS.items()]


def test_ids_are_in_order_and_each_is_used() -> None:
    assert list(MEANINGS) == sorted(MEANINGS)
    assert all(re.fullmatch(r"PH-A\d\d", id_) for id_ in MEANINGS)
    folders = (ROOT / "phard_hub" / "auditing", ROOT / "phard_hub" / "hub")
    trees = [ast.parse(path.read_text("utf-8")) for folder in folders for path in folder.glob("*.py")]
    used = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(MEANINGS) <= used


def test_an_id_that_is_not_in_the_table_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        error("PH-A98", "config.json", "evidence", "advice")


def test_evidence_is_one_short_line_without_control_characters() -> None:
    found = note("PH-A27", "config.json", "a\nb\x1b[31m" + "c" * 1000, "advice")
    assert found.evidence.startswith("a b?[31mccc")
    assert len(found.evidence) == 200


@pytest.mark.parametrize(
    ("forbidden", "expected"),
    [
        (("error",), ["PH-A01"]),
        (("error", "warning"), ["PH-A01", "PH-A02"]),
        (SEVERITIES, ["PH-A01", "PH-A02", "PH-A27"]),
        (None, []),
    ],
)
def test_what_a_policy_refuses(forbidden: tuple[str, ...] | None, expected: list[str]) -> None:
    findings = (error("PH-A01", "x", "", ""), warning("PH-A02", "y", "", ""), note("PH-A27", "z", "", ""))
    record = AuditRecord(repo="org/model", commit=None, upstream=None, files={}, findings=findings)
    policy = Policy.model_validate({"forbid_findings": forbidden})
    assert [found.id for found in record.refused_by(policy)] == expected
