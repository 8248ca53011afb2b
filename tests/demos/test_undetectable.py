"""`phard undetectable`: what it says is what it found."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from phard_hub.demos import undetectable as demo
from phard_hub.demos.undetectable import undetectable
from phard_hub.errors import InputError
from tests.claims import claims
from tests.command import Phard

NOTHING = re.compile(r": <= \d+(\.\d+)? % \(0 of \d+\)")
ALL = ": 100.00 % [96.30, 100.00]"


def test_it_shows_the_limit_and_what_helps(phard: Phard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, steps in (("LEARNING", 60), ("BRIEF", 15)):  # what it shows does not hang on how long is trained
        monkeypatch.setattr(demo, name, replace(getattr(demo, name), steps=steps))
    done = phard("undetectable")
    assert done.code == 0, done.err
    assert claims(done.out) == []
    found = dict(line.strip().partition(": ")[::2] for line in done.out.splitlines() if line.startswith("  "))
    for tried, what in found.items():
        line = f": {what}"
        if tried.startswith(("signed images", "success after")):
            assert line == ALL, tried
        elif tried.startswith(("the same images", "success with", "success behind", "success on", "certified images")):
            assert NOTHING.fullmatch(line), tried
    assert found["largest difference of a logit on 1000 queries"] == "0"
    for blind in ("accuracy, honest and not", "accuracy under PGD-10, Linf 2/255, honest and not"):
        one, other = found[blind].split(" and ")
        assert one == other
    assert list(tmp_path.iterdir()) == []
    page = " ".join((Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8").split())
    assert [tried for tried in found if tried not in page] == []


def test_it_says_at_once_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(InputError, match="phard-hub\\[undetectable\\]"):
        next(undetectable())


def test_the_table_of_the_page_is_what_was_measured() -> None:
    root = Path(__file__).parents[2]
    measured = (root / "tests/benchmarks/results/undetectable/digits.md").read_text("utf-8")
    assert measured in (root / "docs" / "limits.md").read_text("utf-8")
