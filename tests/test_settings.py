"""Settings are checked where they are made, in Python as in TOML."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from phard_hub.attacks import ATTACKS, Blend, WaNet
from phard_hub.attacks.poisoning import Planting
from phard_hub.defenses import DEFENSES, AdversarialTraining, PervasiveHardening
from phard_hub.errors import InputError
from phard_hub.evaluation.autoattack import AutoAttack
from phard_hub.evaluation.reactivation import Perturbing, Relearning
from phard_hub.evaluation.threats import PGD, Threat
from phard_hub.images.data import DataOptions
from phard_hub.pipeline import Settings
from phard_hub.presets import PRESETS, Preset
from phard_hub.training.schedule import Schedule
from phard_hub.trials.judging import Judging
from phard_hub.triggers.bank import Parts
from phard_hub.triggers.search import SearchSettings

WRONG: list[tuple[type, dict[str, Any]]] = [
    (Schedule, {"steps": -5}),
    (Schedule, {"interpolation": 7.0}),
    (Schedule, {"batch": 0}),
    (Schedule, {"batch": "128"}),
    (Schedule, {"batch": 12.5}),
    (Schedule, {"batch": True}),
    (Schedule, {"learning_rate": math.nan}),
    (Schedule, {"learning_rate": math.inf}),
    (Schedule, {"momentum": 1.0}),
    (Schedule, {"stepz": 3}),
    (SearchSettings, {"betas": (0.5, 1.0)}),
    (SearchSettings, {"betas": (0.5,)}),
    (SearchSettings, {"parts": {"warp": False}}),
    (Settings, {"seed": -1}),
    (Blend, {"seed": 2**32}),
    (Parts, {"knots": 1}),
    (PGD, {"epsilon": 8}),
    (PGD, {"steps": 0}),
    (AutoAttack, {"queries": 0}),
    (Relearning, {"steps": (20, -3)}),
    (Relearning, {"steps": [20]}),
    (Perturbing, {"steps": -1}),
    (Threat, {"name": "x", "trigger": Blend(), "target": -1}),
    (Threat, {"name": "x", "trigger": "blend", "target": 1}),
    (Threat, {"name": "x"}),
    (Blend, {"alpha": -0.1}),
    (WaNet, {"grid": 0}),
    (AdversarialTraining, {"schedule": Parts()}),
    (PervasiveHardening, {"bank": Schedule()}),
    (Preset, {"search": PGD()}),
    (Judging, {"natural": "blend"}),
    (Planting, {"poison_rate": 1.5}),
    (DataOptions, {"images": "x", "max_images": 0}),
    (Settings, {"preset": "fast"}),
]


@pytest.mark.parametrize(("kind", "values"), WRONG, ids=[f"{kind.__name__} {values}" for kind, values in WRONG])
def test_wrong_values_are_refused(kind: type, values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"no settings of {kind.__name__}: "):
        kind(**values)


def test_the_fault_is_named_and_the_value_is_not_repeated() -> None:
    with pytest.raises(InputError, match="of Schedule: batch: Input should be greater than 0") as refused:
        Schedule(batch=-12345)
    assert "12345" not in str(refused.value)


def test_perturbing_by_no_steps_is_left_out_and_may_be_said() -> None:
    assert Perturbing(steps=0).steps == 0


MADE = [*(make() for make in ATTACKS.values()), *(make() for make in DEFENSES.values()), *PRESETS.values()]


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
def test_every_field_is_checked_again_when_it_is_replaced(made: Any) -> None:
    for field in fields(made):
        with pytest.raises(InputError):
            replace(made, **{field.name: object()})
        assert replace(made, **{field.name: getattr(made, field.name)}) == made
        assert not is_dataclass(getattr(made, field.name)) or replace(getattr(made, field.name))


def test_settings_are_given_by_name_and_stay_as_they_are() -> None:
    with pytest.raises(TypeError):
        Schedule(100)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Schedule().steps = 3  # type: ignore[misc]
