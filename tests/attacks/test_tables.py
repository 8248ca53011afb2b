"""The README's tables of attacks are those of the results."""

from __future__ import annotations

from tests.benchmarks.attacks.table import README, renew_readme


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    text = README.read_text("utf-8")
    assert "<!-- cifar10 planted -->" in text
    assert "<!-- cifar10 defended -->" in text
    assert renew_readme(text) == text, "run python -m tests.benchmarks.attacks table"
