"""The experiment files of the comparison with others: they can be read, and their rows are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from phard_hub.attacks import ATTACKS
from phard_hub.defenses import DEFENSES, RIVALS
from phard_hub.trials.experiment import Plan, read_experiment

FOLDER = Path(__file__).parents[1] / "benchmarks" / "rivals"
SPLIT = FOLDER.parent / "SPLIT.md"
DEVELOPMENT, TEST = "cifar10-removal.toml", "cifar10-removal-test.toml"
OTHER_DATA = "fashion_mnist-removal-test.toml"


def plans(name: str) -> tuple[Plan, ...]:
    return read_experiment(FOLDER / name, images="images")


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.toml")))
def test_each_file_can_be_read_and_the_split_names_it(name: str) -> None:
    assert plans(name)
    assert f"rivals/{name}" in SPLIT.read_text("utf-8")


@pytest.mark.parametrize("name", [DEVELOPMENT, TEST, OTHER_DATA, "cifar10-honest.toml"])
def test_rows_that_carry_the_name_of_another_defense_are_as_published(name: str) -> None:
    made = {plan.cell.defense: plan.defense for plan in plans(name)}
    forgetting = [defense for defense in RIVALS if defense.forgets]  # type: ignore[attr-defined]
    assert {defense.name for defense in forgetting} <= set(made)
    assert all(made[defense.name] == DEFENSES[defense.name]() for defense in forgetting)


def test_no_attack_of_the_test_is_one_of_the_development() -> None:
    found = [{plan.cell.attack for plan in plans(name)} for name in (DEVELOPMENT, TEST)]
    assert not found[0] & found[1]
    assert len(found[0]) == 14
    assert len(found[1]) >= 4
    kinds = {plan.attack.name for plan in plans(TEST) if plan.attack}
    assert {"adap-blend", "palette", "median"} <= kinds <= set(ATTACKS)
    seeds = [{plan.cell.seed for plan in plans(name)} for name in (DEVELOPMENT, TEST)]
    assert not seeds[0] & seeds[1]
