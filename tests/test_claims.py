"""T18: neither documents nor code nor output claim what no method can support, and every report has its limits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from phard_hub.report.gate import gate
from phard_hub.report.limits import LIMITS
from phard_hub.report.policy import POLICIES
from phard_hub.report.views.formats import as_json, as_junit, as_text, summary_rows
from phard_hub.report.views.sarif import as_sarif, on_hub
from tests.claims import claims
from tests.command import Phard
from tests.report_factory import make_report

ROOT = Path(__file__).parents[1]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/benchmarks/*.md")})
SOURCES = sorted([*(ROOT / "phard_hub").rglob("*.py"), *(ROOT / "phard_hub").rglob("*.jinja")])
ASSERTED = [
    "The model is clean.",
    "After hardening the model is now safe!",
    "This model is backdoor-free.",
    "It is free of backdoors.",
    "The hardened copy has no backdoor.",
    "Safe to deploy.",
    "Nothing was found. The model is secure.",
    "| verdict | certified clean |",
    "The audit proves that it is clean.",
    "The backdoor is gone.",
    "All weights are guaranteed clean.",
]
DENIED = [
    "No test can prove that a model has no backdoor.",
    "That nothing was found does not say that it is clean.",
    "Accuracy on clean images is 90 %.",
    "It never says that a model is safe.",
    "What is clean data for one is not for the other.",
    "Nobody can tell whether a model is backdoor-free.",
]


@pytest.mark.parametrize("text", ASSERTED)
def test_a_claim_is_found(text: str) -> None:
    assert claims(text)


@pytest.mark.parametrize("text", DENIED)
def test_its_denial_is_none(text: str) -> None:
    assert claims(text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_makes_one(page: Path) -> None:
    assert claims(page.read_text("utf-8")) == []


def strings(path: Path) -> Iterator[str]:
    """What a source file says: docstrings, help texts, messages, and what is between the fields of f-strings."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        yield text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "it" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_text_in_the_code_makes_one() -> None:
    found = {path.name: said for path in SOURCES for text in strings(path) if (said := claims(text))}
    assert found == {}


@pytest.mark.parametrize("hardened", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_verdict_makes_one(hardened: bool, policy: str) -> None:
    report = make_report() if hardened else make_report(after=None)
    verdict = gate(report, POLICIES[policy])
    views = [as_text(verdict), as_json(verdict), as_junit(verdict), as_sarif(verdict, on_hub("a/b", "c", "r.json"))]
    views += ["\n\n".join(row) for row in summary_rows(report)]
    assert [claims(view) for view in views] == [[]] * len(views)


def test_each_report_and_card_has_the_limits(tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    out = tmp_path / "report.json"
    assert phard("measure", tiny_checkpoint, "--images", images, "--preset", "cheapest", "--out", out).code == 0
    card = phard("card", out).out
    assert claims(card) == []
    for limit in LIMITS:
        assert limit in card
    assert any("corollary" in limit and "no report certifies" in limit for limit in LIMITS)
