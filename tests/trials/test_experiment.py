"""The experiment file: what it plans, and one line for each mistake in it."""

from __future__ import annotations

import json
import os
import pickle
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from phard_hub.attacks import ATTACKS, Blend
from phard_hub.attacks.poisoning import Planting
from phard_hub.attacks.wanet import WaNet
from phard_hub.defenses import DEFENSES
from phard_hub.defenses.pervasive import PervasiveHardening
from phard_hub.defenses.removal.finetuning import FineTuning
from phard_hub.errors import ExperimentError
from phard_hub.presets import PRESETS
from phard_hub.report.wording import public_name
from phard_hub.trials.experiment import Plan, read_experiment
from phard_hub.trials.judging import FORMULAS
from phard_hub.trials.options import checked, configured

TOML = re.compile(r"```toml\n(.*?)```", re.DOTALL)
SMALL = 'models = ["org/model"]\nattacks = ["wanet"]\ndefenses = ["none", "pervasive"]\nimages = "org/data"\n'


def plans(text: str, folder: Path, **options: Any) -> tuple[Plan, ...]:
    path = folder / "experiment.toml"
    path.write_text(text)
    return read_experiment(path, **options)


def test_a_short_file_plans_all_cells(tmp_path: Path) -> None:
    text = SMALL + "seeds = [3, 4]\ndata_shares = [0.05, 1]\n"
    found = plans(text, tmp_path)
    cells = [(plan.cell.defense, plan.cell.data_share, plan.cell.seed) for plan in found]
    # Without a defense there is nothing to share out.
    each = [("pervasive", 0.05), ("none", 1.0), ("pervasive", 1.0)]
    assert cells == [(*cell, seed) for seed in (3, 4) for cell in each]
    assert {(plan.cell.model, plan.repo, plan.data.images, plan.target) for plan in found} == {
        ("model", "org/model", "org/data", "0")
    }
    first = found[0]
    assert first.attack == WaNet(seed=3)
    assert first.attack.planting == Planting()
    assert first.defense == PRESETS["default"].defense
    assert first.judging.natural == FORMULAS
    assert found[1].defense is None


def test_options_of_everything_are_given_in_tables(tmp_path: Path) -> None:
    text = """
    models = ["org/model@abc"]
    preset = "fast"
    target = "cat"
    [images]
    images = "org/data"
    max_images = 500
    [planting]
    steps = 20
    from_scratch = true
    poison_rate = 0.2
    learning_rate = 0.1
    [attacks.blend]
    [attacks.faint]
    attack = "blend"
    alpha = 0.1
    planting = { poison_rate = 0.3, learning_rate = 0.2 }
    [attacks.none]
    [defenses.fine-tuning]
    [defenses.long]
    defense = "pervasive"
    preset = "default"
    bank.budget = 20
    bank.betas = [0.6, 0.9]
    bank.schedule.steps = 7
    bank.schedule.batch = 16
    [evaluation]
    distances = true
    natural = ["sig"]
    relearning.steps = [3]
    [evaluation.pgd]
    images = 0
    """
    found = {(plan.cell.attack, plan.cell.defense): plan for plan in plans(text, tmp_path)}
    assert {attack for attack, _ in found} == {"blend", "faint", "none"}
    faint, spared = found["faint", "long"], found["none", "long"]
    common = Planting(steps=20, from_scratch=True, poison_rate=0.2, learning_rate=0.1)
    assert found["blend", "long"].attack == Blend(planting=common)
    assert faint.attack == Blend(alpha=0.1, planting=replace(common, poison_rate=0.3, learning_rate=0.2))
    assert faint.target == "cat"
    assert (faint.data.max_images, faint.judging.distances, faint.judging.relearning.steps) == (500, True, (3,))
    assert (faint.judging.pgd.images, faint.judging.pgd.steps) == (0, PRESETS["fast"].pgd.steps)
    assert spared.attack is None
    default = PRESETS["default"].defense
    schedule = replace(default.bank.schedule, steps=7, batch=16)
    bank = replace(default.bank, budget=20.0, betas=(0.6, 0.9), schedule=schedule)
    assert faint.defense == replace(default, bank=bank)
    assert found["faint", "fine-tuning"].defense == FineTuning().lasting(1450)


def test_paths_are_relative_to_the_file_and_options_come_first(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    (folder / "model").mkdir(parents=True)
    (folder / "train-0.parquet").touch()
    text = SMALL.replace("org/model", "model").replace("org/data", "train-*.parquet")
    plan = plans(text, folder)[0]
    assert (plan.repo, plan.data.images) == (str(folder / "model"), str(folder / "train-*.parquet"))
    assert plan.cell.model == "model"
    assert plans(SMALL.replace("org/model", "./nowhere"), folder)[0].repo == str(folder / "nowhere")
    other = plans(text, folder, models=["a/b", "c"], images="my-images", test_images="others")
    assert {plan.repo for plan in other} == {"a/b", "c"}
    assert {(plan.data.images, plan.data.test_images) for plan in other} == {("my-images", "others")}


@pytest.mark.parametrize("labels", ['{ Katze = "cat" }', '["Katze", "Hund"]'])
def test_an_experiment_may_say_what_class_names_mean(tmp_path: Path, labels: str) -> None:
    table = f'images = {{ images = "org/data", labels = {labels} }}'
    plan = plans(SMALL.replace('images = "org/data"', table), tmp_path)[0]
    assert plan.data.labels == ({"Katze": "cat"} if "{" in labels else ("Katze", "Hund"))
    assert hash(plan.data) is not None
    assert json.dumps(plan.base)


def test_a_config_names_no_place_on_this_disk_and_tells_cells_apart(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "pictures").mkdir()
    text = SMALL.replace("org/model", "model").replace("org/data", "pictures") + "seeds = [0, 1]\n"
    found = plans(text, tmp_path)
    assert str(tmp_path) not in str([plan.config for plan in found])
    assert len({str(plan.config) for plan in found}) == len(found) == 4
    # What comes before the defense is the same for all defenses.
    assert len({str(plan.base) for plan in found}) == 2
    assert len({plan.cell.file_name for plan in found}) == 4


@pytest.mark.parametrize("defense", DEFENSES)
def test_plans_are_sent_to_other_processes(defense: str, tmp_path: Path) -> None:
    names = ", ".join(f'"{name}"' for name in ["none", *ATTACKS])
    text = SMALL.replace('"wanet"', names).replace('"none", "pervasive"', f'"{defense}"')
    found = plans(text, tmp_path)
    assert len(found) == 1 + len(ATTACKS)
    assert pickle.loads(pickle.dumps(found)) == found


MISTAKES = [
    ("attack = 3", r"there is no 'attack'\. Did you mean 'attacks'\? There are: models, seeds"),
    ("attacks.blend = 1\n", r"is not valid TOML"),
    ("seeds = [0, 0]", r"seeds is \[0, 0\]\. Give at least one number, each 0 to 4294967295, no two equal"),
    ("seeds = [-1]", r"seeds is \[-1\]"),
    ("seeds = []", r"seeds is \[\]"),
    ("seeds = [0.5]", r"seeds\[0\] should be a valid integer.*but is 0\.5"),
    ("data_shares = [0]", r"data_shares is \[0\.0\].*in \(0, 1\]"),
    ('data_shares = ["all"]', r"data_shares\[0\] should be a valid number.*but is 'all'"),
    ("target = [1]", r"target.* should be a valid"),
    ('preset = "best"', r"preset: there is no 'best'\. There are: gate, fast, default"),
    ("planting = { stepps = 3 }", r"planting: there is no 'stepps'\. Did you mean 'steps'\?"),
    ("planting = { attack = 'sig' }", r"planting: there is no 'attack'\. There are: poison_rate"),
    ("planting = { steps = 0 }", r"planting\.steps should be greater than 0, but is 0"),
    ("planting = { poison_rate = 2 }", r"poison_rate should be less than or equal to 1, but is 2"),
    ("planting = 3", r"planting should be a table"),
    ("evaluation = { pgd = 5 }", r"evaluation\.pgd is 5, not a table\. Write \[evaluation\.pgd\]"),
    ("evaluation = { natural = ['wanit'] }", r"evaluation\.natural: there is no 'wanit'\. Did you mean 'wanet'\?"),
    ("evaluation = { pgd = { seed = 5 } }", r"evaluation\.pgd: there is no 'seed'"),
    ("evaluation = { pgd = { epsilon = -0.1 } }", r"pgd\.epsilon should be greater than or equal to 0, but is -0\.1"),
    ("evaluation = { distances = 1 }", r"evaluation\.distances should be a valid boolean, but is 1"),
]


@pytest.mark.parametrize(("line", "expected"), MISTAKES)
def test_a_mistake_is_named_in_one_line(line: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=expected) as caught:
        plans(SMALL + line, tmp_path)
    assert "\n" not in str(caught.value)


WRONG_NAMES = [
    (
        '["wanet"]',
        '["wannet"]',
        r"attacks\.wannet: there is no 'wannet'\. Did you mean 'wanet'\? There are: none, wanet",
    ),
    ('["wanet"]', "{ a = { attack = 'b' } }", r"attacks\.a\.attack: there is no 'b'"),
    ('["wanet"]', "{ sig = { frequence = 1 } }", r"attacks\.sig: there is no 'frequence'\. Did you mean 'frequency'\?"),
    ('["wanet"]', "{ sig = { key = 1 } }", r"attacks\.sig: there is no 'key'"),
    ('["wanet"]', "{ none = { alpha = 1 } }", r"attacks\.none: there is no 'alpha'"),
    ('["wanet"]', "{ 'a b' = { attack = 'sig' } }", r"'a b' is no name"),
    ('["wanet"]', "[]", r"attacks are missing\. Write attacks = "),
    ('["wanet"]', "{ sig = { planting = { steps = 0 } } }", r"attacks\.sig\.planting\.steps should be greater than 0"),
    ('["wanet"]', "{ refool-ghost = { pictures = 0 } }", r"refool-ghost\.pictures should be greater than 0"),
    ('["wanet"]', "{ sig = { planting = { delta = 1 } } }", r"attacks\.sig\.planting: there is no 'delta'"),
    ('["wanet"]', "{ sig = 3 }", r"attacks\.sig should be a table"),
    ('["none", "pervasive"]', '["pervasiv"]', r"there is no 'pervasiv'\. Did you mean 'pervasive'\?"),
    ('["none", "pervasive"]', "{ none = { steps = 1 } }", r"defenses\.none: there is no 'steps'"),
    (
        '["none", "pervasive"]',
        "{ pervasive = { bank = { schedule = { steps = 'many' } } } }",
        r"defenses\.pervasive\.bank\.schedule\.steps should be a valid integer, but is 'many'",
    ),
    ('["none", "pervasive"]', "{ pervasive = { preset = 'x' } }", r"defenses\.pervasive: preset: there is no 'x'"),
    ('"org/model"', "", r"models is \[\]\. Name at least one"),
    ('"org/model"', '"a/b", "c/b"', r"no two of the same last part"),
    ('images = "org/data"', "", r"names no images"),
]


@pytest.mark.parametrize(("old", "new", "expected"), WRONG_NAMES)
def test_a_wrong_name_is_answered_with_the_right_ones(old: str, new: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=expected) as caught:
        plans(SMALL.replace(old, new), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"nothing\.toml: No such file"):
        read_experiment(tmp_path / "nothing.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ExperimentError, match=r"it is no UTF-8 text"):
        read_experiment(tmp_path / "bytes.toml")


# Options


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int = 1
    pair: tuple[float, float] = (1.0, 2.0)
    inner: Inner = field(default_factory=Inner)
    key: Tensor = field(default_factory=lambda: torch.zeros(1), compare=False)
    seed: int = 0


def test_options_change_fields_and_fields_of_fields() -> None:
    made = configured(Outer(), {"pair": [3, 4], "inner": {"rate": 1, "name": "x"}}, "outer")
    assert made == Outer(pair=(3.0, 4.0), inner=Inner(rate=1.0, name="x"))
    assert [type(value) for value in made.pair] == [float, float]
    assert configured(Outer(), {}, "outer") == Outer()


def test_zero_turns_a_part_off() -> None:
    """No steps of forgetting, and a bank that stays where it started, as in an ablation."""
    off = {"forgetting": {"schedule": {"steps": 0}}, "bank": {"learning_rate": 0, "schedule": {"learning_rate": 0}}}
    made = configured(PervasiveHardening(), off, "defenses.pervasive")
    assert made.forgetting.schedule.steps == 0
    assert (made.bank.learning_rate, made.bank.schedule.learning_rate) == (0, 0)


@pytest.mark.parametrize(
    ("value", "kind"), [("5", int), (True, int), (1.5, int), (1, bool), ([1], tuple[int, int]), ("x", float)]
)
def test_nothing_is_guessed_from_a_value_of_another_type(value: object, kind: object) -> None:
    with pytest.raises(ExperimentError, match=r"^place"):
        checked(value, kind, "place")


@pytest.mark.parametrize(
    ("place", "public"),
    [("org/data", "org/data"), ("{0}/digits", "digits"), ("{0}/part-*.parquet", "part-*.parquet")],
)
def test_what_is_published_names_no_folder_of_this_disk(tmp_path: Path, place: str, public: str) -> None:
    (tmp_path / "digits").mkdir()
    assert public_name(place.format(tmp_path)) == public.format(tmp_path)


@pytest.mark.parametrize(
    ("name", "public"), [(b"a\xff", "a?"), (b"x\x1b[31m\ny", "x?[31m y"), (b"y" * 250, "y" * 199 + "…")]
)
def test_what_is_published_can_be_written_and_printed(tmp_path: Path, name: bytes, public: str) -> None:
    place = tmp_path / os.fsdecode(name)
    place.mkdir()
    assert public_name(str(place)) == public


def test_the_experiments_that_the_project_shows_can_be_read(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "benchmarks"
    attacks = {
        path.stem: {plan.attack.name for plan in read_experiment(path, images="org/data") if plan.attack}
        for path in folder.glob("attacks/*.toml")
    }
    assert all(attacks.values())
    assert attacks["cifar10"] & attacks["gtsrb_roi32"] >= set(FORMULAS)
    examples = [text for page in (folder, folder.parents[1]) for text in TOML.findall((page / "README.md").read_text())]
    examples = [text for text in examples if "attacks" in text]
    assert len(examples) == 2
    for example in examples:
        assert len(plans(example, tmp_path)) > 10
