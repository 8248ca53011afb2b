"""The removal defenses of others: a planted pattern goes where plain fine-tuning leaves it, and the accuracy stays."""

from __future__ import annotations

import pytest

from phard_hub.defenses import DEFENSES
from phard_hub.defenses.trained import Scheduled
from tests.defenses.planted import defended, left, planted, short

LEAVES = {"fine-pruning": 0.1, "nad": 0.2, "anp": 0.3, "i-bau": 0.3, "ft-sam": 0.1, "fst": 0.1, "sau": 0.4}
"""How often the pattern may still work; these are small networks, and few steps."""


def made(name: str) -> Scheduled:
    defense = DEFENSES[name]()
    assert isinstance(defense, Scheduled)
    return short(defense)


def test_the_pattern_works_and_fine_tuning_leaves_it() -> None:
    assert left(planted()).success > 0.9
    assert left(defended(made("ft"))[0]).success > 0.9


@pytest.mark.parametrize("name", LEAVES)
def test_the_pattern_goes_and_the_accuracy_stays(name: str) -> None:
    after = left(defended(made(name))[0])
    assert after.success < LEAVES[name]
    assert after.accuracy > left(planted()).accuracy - 0.04
