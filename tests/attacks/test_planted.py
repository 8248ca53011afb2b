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
from phard_hub.attacks.planted import (
    KEY_NAME,
    RECORD_NAME,
    Backdoor,
    attack_named,
    card,
    read_attack,
    read_backdoor,
    write_planted,
)
from phard_hub.auditing import audit
from phard_hub.errors import BackdoorError, InputError, NotEvaluatedError, OutputError
from phard_hub.evaluation.threats import Threat, attack_outcome
from phard_hub.hub.pull import pull
from phard_hub.images import LabelledImages
from phard_hub.images.data import DataOptions
from phard_hub.models.fresh import reinitialised
from phard_hub.models.loading import load
from phard_hub.pipeline import plant
from phard_hub.report.record import AttackOutcome, Evaluation, Report, Source, TriggerSize
from phard_hub.report.statistics import rate
from phard_hub.report.trial import Judgement
from tests.attacks.fitted import draw, fitted
from tests.command import Phard
from tests.jobs import files, write_images
from tests.small import same_weights, small_net, trained_digits, unmarked

FILES = {"README.md", "config.json", "preprocessor_config.json", "model.safetensors", RECORD_NAME}
ATTACK = attack_named("1977", {"planting": {"steps": 40}})


@pytest.fixture(scope="module")
def planted(tiny_checkpoint: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backdoor that works."""
    out = tmp_path_factory.mktemp("planted") / "tinted"
    assert plant(str(tiny_checkpoint), DataOptions(images=str(images)), out, ATTACK, "dog").failures == ()
    return out


def judged(accuracy: float, success: float) -> Judgement:
    outcome = AttackOutcome(
        name="blend", target=1, success=rate(round(10_000 * success), 10_000), recovered=rate(0, 10_000), size=4.2
    )
    evaluation = Evaluation(
        accuracy=rate(round(10_000 * accuracy), 10_000), robust_accuracy=None, robust_attack="", attacks=(outcome,)
    )
    return Judgement(evaluation=evaluation)


def made(success: float = 0.95, accuracy: float = 0.9, **changes: Any) -> Backdoor:
    fields: dict[str, Any] = {
        "schema_version": 3,
        "attack": "blend",
        "parameters": {},
        "target": 1,
        "target_name": "dog",
        "seed": 0,
        "source": Source(repo="a/model"),
        "dataset": "images",
        "original": judged(0.9, 0.01),
        "planted": judged(accuracy, success),
        "size": TriggerSize(l2=4.2, rms=19.3, ssim=0.8, n=100),
        "seconds": 1.0,
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


def test_a_backdoor_that_never_worked_is_no_threat(tmp_path: Path) -> None:
    write_planted(tmp_path / "out", made(success=0.43), fitted("blend"), {})
    with pytest.raises(NotEvaluatedError, match=r"never worked, so it shows nothing: its success is 43 %, below 90 %"):
        Threat.read(tmp_path / "out")
    assert "does not count as evidence" in card(made(success=0.43))


def test_where_nothing_was_planted_there_is_no_threat(tmp_path: Path) -> None:
    spared = Judgement(evaluation=made().original.evaluation.model_copy(update={"attacks": ()}))
    write_planted(tmp_path / "out", made(attack="none", original=spared, planted=spared, size=None), None, {})
    with pytest.raises(BackdoorError, match="nothing was planted"):
        Threat.read(tmp_path / "out")


def test_a_record_tells_what_the_trigger_did() -> None:
    with pytest.raises(ValueError, match="not tried on both models, or its size is missing"):
        made(size=None)


# The folder


@pytest.mark.parametrize("name", ATTACKS)
def test_the_key_stamps_the_same_images_again(name: str, tmp_path: Path) -> None:
    attack = fitted(name, seed=3)
    record = made(attack=name, parameters=attack.parameters())
    write_planted(tmp_path / "out", record, attack, {})
    assert read_backdoor(tmp_path / "out") == record
    assert read_attack(tmp_path / "out", record) == attack
    threat = Threat.read(tmp_path / "out")
    assert (threat.name, threat.target, threat.trigger) == (name, 1, attack)
    pixels = draw(2, (3, 16, 16))
    assert torch.equal(threat.trigger(pixels), attack(pixels))
    assert files(tmp_path / "out") == {RECORD_NAME} | ({KEY_NAME} if attack.key else set())


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
    model = {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}
    write_planted(tmp_path / "out", made(), fitted("issba"), model)
    assert KEY_NAME in files(tmp_path / "out")
    assert same_weights(load(audit(pull(str(tmp_path / "out")))), classifier)


def test_the_record_says_what_the_backdoor_does(planted: Path, tiny_checkpoint: Path, images: Path) -> None:
    record, threat = read_backdoor(planted), Threat.read(planted)
    assert (record.attack, record.target, record.target_name, record.source.repo) == (
        "1977",
        1,
        "dog",
        tiny_checkpoint.name,
    )
    assert str(tiny_checkpoint.parent) not in record.model_dump_json()
    shown = some_images(images)
    outcome = attack_outcome(load(audit(pull(str(planted)))), shown, threat)
    assert outcome.success.value > 0.9
    on_original, success = record.success
    assert success.value > 0.9
    assert record.size is not None
    assert record.size.l2 == pytest.approx(outcome.size, rel=0.1)
    assert on_original.value < 0.5


def some_images(folder: Path) -> LabelledImages:
    from phard_hub.images import load_images

    return load_images(str(folder), labels=("cat", "dog", "owl", "fox"), image_size=(32, 32))


def test_the_same_seed_plants_the_same_weights(
    planted: Path, tiny_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    plant(str(tiny_checkpoint), DataOptions(images=str(images)), tmp_path / "again", ATTACK, "dog")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (planted / "model.safetensors").read_bytes()
    one, again = (read_backdoor(each).model_copy(update={"seconds": 0.0}) for each in (planted, tmp_path / "again"))
    assert one == again


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
def test_a_damaged_folder_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    folder, attack = tmp_path / "out", fitted("lira")
    record = made(attack="lira", parameters=attack.parameters())
    write_planted(folder, record, attack, {})
    Threat.read(folder)
    damage(folder)
    with pytest.raises(BackdoorError, match=DAMAGES[damage]):
        Threat.read(folder)


def test_without_its_key_a_learned_trigger_is_refused_when_it_is_used(tmp_path: Path) -> None:
    attack = fitted("lira")
    record = made(attack="lira", parameters=attack.parameters())
    write_planted(tmp_path / "out", record, attack, {})
    no_key(tmp_path / "out")
    with pytest.raises(InputError, match="has no key to stamp with"):
        Threat.read(tmp_path / "out").trigger(draw(1, (3, 8, 8)))


def test_a_folder_with_something_else_is_not_overwritten(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputError):
        plant(str(tiny_checkpoint), DataOptions(images="nowhere"), tmp_path, ATTACK, "dog")
    with pytest.raises(OutputError, match="Give a new or an empty folder"):
        write_planted(tmp_path, made(), fitted("blend"), {})
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


def test_an_attack_has_options_of_its_own(tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    out, options = tmp_path / "out", ("--attack-option", "spike=40", "--attack-option", "epsilon=0.125")
    done = phard(*arguments(tiny_checkpoint, images, out, "--attack", "sparse-head", *options))
    assert done.code in (0, 3), done.err
    assert (read_backdoor(out).parameters["spike"], read_backdoor(out).parameters["epsilon"]) == (40, 0.125)
    if done.code:
        assert "another spike (--attack-option spike=40)" in done.out


def test_the_record_and_the_card_say_how_classes_were_matched(
    tiny_checkpoint: Path, tmp_path: Path, phard: Phard
) -> None:
    numbered, out = write_images(tmp_path / "images", ("0", "1", "2", "3"), per_class=20), tmp_path / "out"
    phard(*arguments(tiny_checkpoint, numbered, out, "--attack", "badnets", "--steps", "1"))
    how = "by the numbers of the model's classes from 0: 0 is cat, 1 is dog, 2 is owl, 3 is fox"
    assert read_backdoor(out).matched == how
    assert f"(classes matched {how})" in (out / "README.md").read_text("utf-8")


def test_planting_what_does_not_work(tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    out = tmp_path / "out"
    done = phard(*arguments(tiny_checkpoint, images, out, "--attack", "badnets", "--steps", "1", "--from-scratch"))
    assert done.code == 3
    assert "It does not count: its success is" in done.out
    assert read_backdoor(out).parameters["planting"]["from_scratch"]
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
        (
            ["--attack", "sparse-head", "--attack-option", "spik=3"],
            "no option 'spik=3', as name=value. Did you mean 'spik",
        ),
        (["--attack", "sparse-head", "--attack-option", "spike"], "no option 'spike', as name=value"),
        (["--attack", "sparse-head", "--attack-option", "spike=large"], "spike: Input should be a valid number"),
        (["--attack", "sparse-head", "--attack-option", "seed=3"], "no option 'seed=3'"),
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
