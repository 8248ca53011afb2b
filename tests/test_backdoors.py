"""Planting a backdoor in a model, the folder that keeps it with its key, and judging models with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from phard_hub.attacks import ATTACKS
from phard_hub.auditing import audit
from phard_hub.backdoors import (
    KEY_NAME,
    RECORD_NAME,
    Backdoor,
    Planting,
    plant_backdoor,
    read_backdoor,
    read_record,
    reinitialised,
    write_backdoor,
)
from phard_hub.errors import BackdoorError, InputError, NotEvaluatedError, OutputError
from phard_hub.evaluation.threats import attack_outcome
from phard_hub.hub.pull import pull
from phard_hub.images import LabelledImages
from phard_hub.models.loading import load
from phard_hub.pipeline import DataOptions
from phard_hub.report.record import AttackOutcome, Report, TriggerSize
from phard_hub.report.statistics import rate
from tests.attacks.fitted import draw, fitted
from tests.command import Phard
from tests.jobs import files
from tests.small import same_weights, small_net, trained_digits, unmarked

FILES = {"README.md", "config.json", "preprocessor_config.json", "model.safetensors", RECORD_NAME}
PLANTING = Planting(attack="1977", target="dog", steps=40)


@pytest.fixture(scope="module")
def planted(tiny_checkpoint: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backdoor that works."""
    out = tmp_path_factory.mktemp("planted") / "tinted"
    assert plant_backdoor(str(tiny_checkpoint), DataOptions(images=str(images)), out, PLANTING).failures == ()
    return out


def made(success: float = 0.95, accuracy: float = 0.9, **changes: Any) -> Backdoor:
    outcome = AttackOutcome(
        name="blend", target=1, success=rate(round(10_000 * success), 10_000), recovered=rate(5, 100), size=4.2
    )
    fields: dict[str, Any] = {
        "schema_version": 1,
        "attack": "blend",
        "parameters": {},
        "target": 1,
        "target_name": "dog",
        "poison_rate": 0.1,
        "from_scratch": False,
        "schedule": {"steps": 3},
        "seed": 0,
        "source": "a/model",
        "commit": None,
        "dataset": "images",
        "accuracy_before": rate(90, 100),
        "accuracy": rate(round(100 * accuracy), 100),
        "outcome": outcome,
        "size": TriggerSize(l2=4.2, rms=19.3, ssim=0.8, n=100),
    }
    return Backdoor(**(fields | changes))


# What counts


def test_a_backdoor_counts_only_if_it_works_and_costs_little() -> None:
    assert made(success=0.9, accuracy=0.87).failures == ()
    assert made(accuracy=0.97).failures == ()
    assert made(success=0.89).failures == ("its success is 89 %, below 90 %",)
    assert made(success=0.8998).failures == ("its success is 89.98 %, below 90 %",)
    assert made(accuracy=0.86).failures == ("it cost 4.0 points of accuracy, over 3",)
    assert len(made(success=0.0, accuracy=0.1).failures) == 2


def test_a_backdoor_that_never_worked_is_no_threat(tmp_path: Path, tiny_checkpoint: Path) -> None:
    out = tmp_path / "out"
    write_backdoor(
        out, made(success=0.43), fitted("blend"), load(audit(pull(str(tiny_checkpoint)))), pull(str(tiny_checkpoint))
    )
    with pytest.raises(NotEvaluatedError, match=r"never worked, so it shows nothing: its success is 43 %, below 90 %"):
        read_backdoor(out)
    assert "does not count as evidence" in (out / "README.md").read_text()


# The folder


@pytest.mark.parametrize("name", ATTACKS)
def test_the_key_stamps_the_same_images_again(name: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    attack = fitted(name, seed=3)
    record = made(attack=name, parameters=attack.parameters())
    write_backdoor(tmp_path / "out", record, attack, small_net(4, channels=3, size=16), pull(str(tiny_checkpoint)))
    assert read_record(tmp_path / "out") == record
    threat = read_backdoor(tmp_path / "out")
    assert (threat.name, threat.target, threat.trigger) == (name, 1, attack)
    pixels = draw(2, (3, 16, 16))
    assert torch.equal(threat.trigger(pixels), attack(pixels))
    assert files(tmp_path / "out") == FILES | ({KEY_NAME} if attack.key else set())


def test_the_folder_is_a_model_as_from_the_hub(planted: Path, tiny_checkpoint: Path, images: Path) -> None:
    from transformers import pipeline

    assert files(planted) == FILES
    for name in ("config.json", "preprocessor_config.json"):
        assert (planted / name).read_bytes() == (tiny_checkpoint / name).read_bytes()
    assert load_file(planted / "model.safetensors").keys() == load_file(tiny_checkpoint / "model.safetensors").keys()
    answers = pipeline("image-classification", model=str(planted), device="cpu")(str(images / "cat" / "0.png"))
    assert answers[0]["label"] == "cat"
    assert "Do not deploy it" in (planted / "README.md").read_text()


def test_a_key_beside_the_weights_does_not_keep_them_from_loading(tmp_path: Path, tiny_checkpoint: Path) -> None:
    classifier = load(audit(pull(str(tiny_checkpoint))))
    write_backdoor(tmp_path / "out", made(), fitted("issba"), classifier, pull(str(tiny_checkpoint)))
    assert KEY_NAME in files(tmp_path / "out")
    assert same_weights(load(audit(pull(str(tmp_path / "out")))), classifier)


def test_the_record_says_what_the_backdoor_does(planted: Path, tiny_checkpoint: Path, images: Path) -> None:
    record, threat = read_record(planted), read_backdoor(planted)
    assert (record.attack, record.target, record.target_name, record.source) == ("1977", 1, "dog", tiny_checkpoint.name)
    assert str(tiny_checkpoint.parent) not in record.model_dump_json()
    shown = some_images(images)
    outcome = attack_outcome(load(audit(pull(str(planted)))), shown, threat)
    assert outcome.success.value > 0.9
    assert record.outcome.success.value > 0.9
    assert record.size.l2 == pytest.approx(outcome.size, rel=0.1)
    assert record.outcome.reference is not None
    assert record.outcome.reference.value < 0.5


def some_images(folder: Path) -> LabelledImages:
    from phard_hub.images import load_images

    return load_images(str(folder), labels=("cat", "dog", "owl", "fox"), image_size=(32, 32))


def test_the_same_seed_plants_the_same_weights(
    planted: Path, tiny_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    plant_backdoor(str(tiny_checkpoint), DataOptions(images=str(images)), tmp_path / "again", PLANTING)
    for name in ("model.safetensors", RECORD_NAME):
        assert (tmp_path / "again" / name).read_bytes() == (planted / name).read_bytes()


def no_record(folder: Path) -> None:
    (folder / RECORD_NAME).unlink()


def broken_record(folder: Path) -> None:
    (folder / RECORD_NAME).write_text("{}")


def no_key(folder: Path) -> None:
    (folder / KEY_NAME).unlink()


def broken_key(folder: Path) -> None:
    (folder / KEY_NAME).write_bytes(b"nothing")


def unknown_attack(folder: Path) -> None:
    change(folder, attack="lirra")


def unknown_parameter(folder: Path) -> None:
    change(folder, parameters={"espilon": 0.5})


def parameter_of_another_type(folder: Path) -> None:
    change(folder, parameters={"epsilon": "much"})


def change(folder: Path, **fields: Any) -> None:
    path = folder / RECORD_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


DAMAGES: dict[Callable[[Path], None], str] = {
    no_record: r"backdoor\.json: No such file or directory\. Give a folder that `phard plant` wrote",
    broken_record: r"does not describe a backdoor: schema_version: Field required",
    broken_key: r"Cannot read .*backdoor\.safetensors",
    unknown_attack: r"There is no attack 'lirra'\. Did you mean 'lira'\?",
    unknown_parameter: r"These are not the parameters of lira: espilon: Unexpected",
    parameter_of_another_type: r"These are not the parameters of lira: epsilon: Input should be a valid number",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_is_refused(damage: Callable[[Path], None], tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder, attack = tmp_path / "out", fitted("lira")
    record = made(attack="lira", parameters=attack.parameters())
    write_backdoor(folder, record, attack, small_net(4), pull(str(tiny_checkpoint)))
    read_backdoor(folder)
    damage(folder)
    with pytest.raises(BackdoorError, match=DAMAGES[damage]):
        read_backdoor(folder)


def test_without_its_key_a_learned_trigger_is_refused_when_it_is_used(tmp_path: Path, tiny_checkpoint: Path) -> None:
    attack = fitted("lira")
    record = made(attack="lira", parameters=attack.parameters())
    write_backdoor(tmp_path / "out", record, attack, small_net(4), pull(str(tiny_checkpoint)))
    no_key(tmp_path / "out")
    with pytest.raises(InputError, match="has no key to stamp with"):
        read_backdoor(tmp_path / "out").trigger(draw(1, (3, 8, 8)))


def test_a_folder_with_something_else_is_not_overwritten(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputError):
        plant_backdoor(str(tiny_checkpoint), DataOptions(images="nowhere"), tmp_path, PLANTING)
    with pytest.raises(OutputError, match="Give a new or an empty folder"):
        write_backdoor(tmp_path, made(), fitted("blend"), small_net(4), pull(str(tiny_checkpoint)))
    assert files(tmp_path) == {"thesis.tex"}


# From scratch


@pytest.mark.parametrize("library", ["transformers", "none"])
def test_new_weights_are_drawn_from_the_seed_and_leave_no_mark(library: str, tiny_checkpoint: Path) -> None:
    classifier = load(audit(pull(str(tiny_checkpoint)))) if library == "transformers" else trained_digits()
    with unmarked(classifier):
        one, same, other = (reinitialised(classifier, seed) for seed in (1, 1, 2))
    assert same_weights(one, same)
    assert not same_weights(one, other)
    assert not same_weights(one, classifier)
    assert one.labels == classifier.labels


def test_weights_that_no_layer_draws_cannot_be_drawn_anew() -> None:
    classifier = small_net(3)
    classifier.network.register_parameter("scale", nn.Parameter(torch.ones(1)))
    with pytest.raises(InputError, match="The weights of a Sequential cannot be drawn anew"):
        reinitialised(classifier, 0)


# The command


def arguments(model: Path, images: Path, out: Path, *more: object) -> list[object]:
    return ["plant", model, "--images", images, "--out", out, "--target", "dog", *more]


def test_planting_by_command(tiny_checkpoint: Path, images: Path, planted: Path, tmp_path: Path, phard: Phard) -> None:
    out = tmp_path / "out"
    done = phard(*arguments(tiny_checkpoint, images, out, "--attack", "1977", "--steps", "40"))
    assert done.code == 0
    assert "Planted 1977, target dog" in done.out
    assert (out / "model.safetensors").read_bytes() == (planted / "model.safetensors").read_bytes()


def test_planting_what_does_not_work(tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    out = tmp_path / "out"
    done = phard(*arguments(tiny_checkpoint, images, out, "--attack", "badnets", "--steps", "1", "--from-scratch"))
    assert done.code == 3
    assert "It does not count: its success is" in done.out
    assert read_record(out).from_scratch
    judged = phard("measure", tiny_checkpoint, "--images", images, "--preset", "cheapest", "--backdoor", out)
    assert judged.code == 3
    assert "never worked, so it shows nothing" in judged.complaint


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--attack", "wannet"], "There is no attack 'wannet'. Did you mean 'wanet'?"),
        (["--attack", "mirror"], "The attacks are: wanet, sig, blend"),
        (["--attack", "sig", "--target", "dgo"], "The model has no class 'dgo'. Did you mean 'dog'?"),
        (["--attack", "sig", "--target", "4"], "The model has no class '4'. Give 0 to 3, or a name."),
        (["--attack", "sig", "--poison-rate", "1.5"], "less than or equal to 1"),
    ],
)
def test_a_mistake_is_one_line(
    more: list[str], expected: str, tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    done = phard(*arguments(tiny_checkpoint, images, tmp_path / "out", *more))
    assert done.code == 2
    assert expected in done.complaint
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_judged_with_the_key(planted: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    report = tmp_path / "report.json"
    measure = ["measure", planted, "--images", images, "--preset", "cheapest", "--out", report]
    assert phard(*measure, "--backdoor", planted).code == 0
    (attack,) = Report.read(report).before.evaluation.attacks
    assert (attack.name, attack.target) == ("1977", 1)
    assert attack.success.value > 0.9


def test_hardening_says_what_is_left_of_it(planted: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    out = tmp_path / "out"
    other = shutil.copytree(planted, tmp_path / "other")
    change(other, target=2)
    harden = ["harden", planted, "--images", images, "--preset", "cheapest", "--out", out]
    done = phard(*harden, "--backdoor", planted, "--backdoor", other)
    assert done.code in (0, 1, 3)
    report = Report.read(out)
    assert report.after is not None
    for state in (report.before, report.after):
        assert [attack.target for attack in state.evaluation.attacks] == [1, 2]
    assert "1977" in done.out
