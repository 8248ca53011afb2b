"""The command: what its help teaches, its exit codes, and one line for each mistake."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main

from phard_hub.cli.app import app
from phard_hub.cli.console import show_pushed
from phard_hub.errors import NotEvaluatedError
from phard_hub.release.push import Pushed
from phard_hub.report.record import Finding, Report
from tests.command import Phard
from tests.jobs import LABELS, cheap, files, write_images
from tests.report_factory import change_state, make_report

# Help


def commands() -> dict[str, Any]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_every_verb_and_every_option_is_explained(phard: Phard) -> None:
    models, releases = {"quickstart", "harden", "measure", "plant", "compare", "audit"}, {"push", "card", "policy"}
    assert set(commands()) == models | releases | {"gate", "sign", "verify", "demo", "launch", "undetectable"}
    for verb, command in commands().items():
        assert all(len(parameter.help or "") > 15 for parameter in command.params), verb
        done = phard(verb, "--help")
        assert (done.code, done.err) == (0, "")
        assert done.out.split("Usage: phard ")[1].startswith(verb)
        assert command.help.split("\n")[0][:40] in done.out
        assert phard(verb, "-h") == done


def test_without_a_verb_the_help_is_shown_and_it_is_wrong_use(phard: Phard) -> None:
    done = phard()
    assert done.code == 2
    assert "phard quickstart" in done.out


def test_the_version_is_that_of_the_package(phard: Phard) -> None:
    assert phard("--version") == (0, f"phard {version('phard-hub')}\n", "")
    assert phard("-h") == phard("--help")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["measur"], "Did you mean 'measure'?"),
        (["gate"], "Missing argument 'target'. See `phard gate --help`."),
        (["gate", "x", "--format", "xml"], "'xml' is not one of 'text', 'json', 'junit', 'sarif'."),
        (
            ["harden", "x", "--images", "y", "--out", "z", "--preset", "best"],
            "'best' is not one of 'gate', 'fast', 'default'",
        ),
        (["harden", "x"], "Missing option '--images'"),
        (
            ["harden", "x", "--images", "y", "--out", "z", "--seed", "-1"],
            "'--seed': Input should be greater than or equal to 0",
        ),
        (["measure", "x", "--image", "y"], "--images"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], expected: str, phard: Phard) -> None:
    done = phard(*arguments)
    assert done.code == 2
    assert expected in done.complaint
    assert done.err.count("\n") == 1


# The gate


def refused_report() -> Report:
    return make_report(findings=(Finding(id="PH-A02", severity="error", file="x.bin", evidence="e", advice="a"),))


def unknown_report() -> Report:
    report = make_report()
    assert report.after is not None
    return make_report(after=change_state(report.after, robust_accuracy=None))


@pytest.mark.parametrize(("report", "code"), [(make_report(), 0), (refused_report(), 1), (unknown_report(), 3)])
@pytest.mark.parametrize("format", ["text", "json", "junit", "sarif"])
def test_the_gate_answers_by_its_exit_code(
    report: Report, code: int, format: str, tmp_path: Path, phard: Phard
) -> None:
    (tmp_path / "phard_report.json").write_text(report.to_json())
    done = phard("gate", tmp_path / "phard_report.json", "--format", format)
    assert (done.code, done.err) == (code, "")
    assert done.out.count("No weights were looked at") == 1


@pytest.mark.parametrize("format", ["text", "json", "junit", "sarif"])
def test_the_gate_says_first_that_nothing_was_hardened(format: str, tmp_path: Path, phard: Phard) -> None:
    (tmp_path / "phard_report.json").write_text(make_report(after=None).to_json())
    out = phard("gate", tmp_path / "phard_report.json", "--format", format).out
    assert out.count("This model was measured, not hardened") == 1
    assert out.index("not hardened") < out.index("No weights were looked at")
    if format == "text":
        assert "not hardened" in out.splitlines()[0]


def test_a_policy_printed_is_a_policy_read(tmp_path: Path, phard: Phard) -> None:
    report, policy = tmp_path / "phard_report.json", tmp_path / "policy.toml"
    report.write_text(make_report().to_json())
    policy.write_text(phard("policy").out)
    assert phard("gate", report, "--policy", policy).code == 0
    policy.write_text("min_mean_distance = 255\n")
    assert phard("gate", report, "--policy", policy).code == 1


@pytest.mark.parametrize(
    ("text", "policy", "expected"),
    [
        ("{}", "", "is not a report of schema 3"),
        ("no json", "", "is not a report of schema 3"),
        (None, "", "Cannot read the report"),
        (make_report().to_json(), "min_mean_distanze = 1", "Did you mean 'min_mean_distance'?"),
        (make_report().to_json(), "min_accuracy = 90", "min_accuracy"),
        (make_report().to_json(), "min_accuracy =", "is not valid TOML"),
        (make_report().to_json(), None, "Cannot read"),
    ],
)
def test_broken_reports_and_policies(
    text: str | None, policy: str | None, expected: str, tmp_path: Path, phard: Phard
) -> None:
    for name, content in (("phard_report.json", text), ("policy.toml", policy)):
        if content is not None:
            (tmp_path / name).write_text(content)
    done = phard("gate", tmp_path, "--policy", tmp_path / "policy.toml") if policy != "" else phard("gate", tmp_path)
    assert done.code == 2
    assert expected in done.complaint
    assert done.err.count("\n") == 1


# Reports for programs


def test_measure_prints_json_and_nothing_else(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    out = tmp_path / "report.json"
    done = phard("measure", tiny_checkpoint, "--images", images, "--preset", "cheapest", "--json", "--out", out)
    assert done.code == 0
    assert Report.from_json(done.out.encode()) == Report.read(out)
    assert "Warning: The accuracy is no better than guessing" in done.err


def test_harden_prints_json_and_nothing_else(tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard) -> None:
    out = tmp_path / "out"
    done = phard(*cheap(tiny_checkpoint, images, out, "--json"))
    assert done.code in (0, 1, 3)
    report = Report.from_json(done.out.encode())
    assert report.after is not None
    assert report.after == Report.read(out).after


def test_where_a_push_went_leaves_stdout_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    for err in (False, True):
        show_pushed(Pushed(url="https://hub/me/model", commit="0" * 40, sent=True), err=err)
        seen = capsys.readouterr()
        assert ("me/model" in seen.out, "me/model" in seen.err) == (not err, err)


# Mistakes, each made by a function that gets a model, images and an empty folder, and changes copies of them.


def unknown_id(model: Path, images: Path, place: Path) -> list[object]:
    return ["measure", "nobody/nothing", "--images", images]


def malformed_id(model: Path, images: Path, place: Path) -> list[object]:
    return ["measure", "a/b/c", "--images", images]


def no_weights(model: Path, images: Path, place: Path) -> list[object]:
    copy = shutil.copytree(model, place / "model")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    return cheap(copy, images, place / "out")


def other_labels(model: Path, images: Path, place: Path) -> list[object]:
    return cheap(model, write_images(place / "images", ("cat", "dog", "owl", "emu"), 4), place / "out")


def truncated_image(model: Path, images: Path, place: Path) -> list[object]:
    copy = shutil.copytree(images, place / "images")
    broken = copy / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    return cheap(model, copy, place / "out")


def empty_class(model: Path, images: Path, place: Path) -> list[object]:
    copy = shutil.copytree(images, place / "images")
    shutil.rmtree(copy / "fox")
    (copy / "fox").mkdir()
    return cheap(model, copy, place / "out")


def one_class(model: Path, images: Path, place: Path) -> list[object]:
    return cheap(model, write_images(place / "images", ("cat",), 8), place / "out")


def too_few(model: Path, images: Path, place: Path) -> list[object]:
    return cheap(model, write_images(place / "images", LABELS, 2), place / "out")


def no_such_images(model: Path, images: Path, place: Path) -> list[object]:
    return cheap(model, place / "nowhere" / "images", place / "out")


def parent_is_a_file(model: Path, images: Path, place: Path) -> list[object]:
    (place / "file").write_text("x")
    return cheap(model, images, place / "file" / "out")


def cannot_be_written(model: Path, images: Path, place: Path) -> list[object]:
    return cheap(model, images, Path("/proc/nothing/out"))  # even root may not


def foreign_folder(model: Path, images: Path, place: Path) -> list[object]:
    (place / "out").mkdir()
    (place / "out" / "thesis.tex").write_text("x")
    return cheap(model, images, place / "out")


def report_in_no_folder(model: Path, images: Path, place: Path) -> list[object]:
    return ["measure", model, "--images", images, "--out", place / "nowhere" / "report.json"]


def report_is_a_folder(model: Path, images: Path, place: Path) -> list[object]:
    return ["measure", model, "--images", images, "--out", place]


def unknown_rule(model: Path, images: Path, place: Path) -> list[object]:
    (place / "policy.toml").write_text("max_acuracy_loss = 1")
    return cheap(model, images, place / "out", "--policy", place / "policy.toml")


def foreign_quickstart(model: Path, images: Path, place: Path) -> list[object]:
    (place / "thesis.tex").write_text("x")
    return ["quickstart", "--out", place]


MISTAKES: dict[Callable[[Path, Path, Path], list[object]], tuple[int, str]] = {
    unknown_id: (2, "There is no folder and no model nobody/nothing on the Hub"),
    malformed_id: (2, "neither an existing folder nor a Hub id"),
    no_weights: (2, "no *.safetensors file"),
    other_labels: (2, "are not the model's"),
    truncated_image: (2, "0.png"),
    empty_class: (2, "no images of 1 of 4 classes: fox"),
    one_class: (2, "A folder needs a sub-folder for each class, and at least two"),
    too_few: (2, "images"),
    no_such_images: (2, "neither an existing file or folder nor a Hub id"),
    parent_is_a_file: (2, "Not a directory"),
    cannot_be_written: (2, "/proc/nothing/out"),
    foreign_folder: (2, "holds files that are no release"),
    report_in_no_folder: (2, "No such file or directory"),
    report_is_a_folder: (2, "it is a folder"),
    unknown_rule: (2, "Did you mean 'max_accuracy_loss'?"),
    foreign_quickstart: (2, "holds other files: thesis.tex"),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_one_line_and_leaves_nothing(
    mistake: Callable[[Path, Path, Path], list[object]],
    tiny_checkpoint: Path,
    images: Path,
    tmp_path: Path,
    phard: Phard,
) -> None:
    arguments = mistake(tiny_checkpoint, images, tmp_path)
    before = files(tmp_path)
    done = phard(*arguments)
    code, expected = MISTAKES[mistake]
    assert done.code == code
    assert expected in done.complaint
    assert done.out == ""
    assert files(tmp_path) == before


def test_a_bug_does_not_look_like_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phard: Phard) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("phard_hub.cli.gate.judge", broken)
    monkeypatch.setattr(Report, "read", lambda *_, **__: make_report())
    done = phard("gate", tmp_path)
    assert done.code == NotEvaluatedError.exit_code
    assert "ZeroDivisionError: a bug" in done.err
    assert done.err.splitlines()[-1].startswith("phard: This is a bug")


def test_ctrl_c_outside_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phard: Phard) -> None:
    def interrupted(*_: Path, **__: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Report, "read", interrupted)
    done = phard("gate", tmp_path)
    assert done.code == 3
    assert "same command again" in done.complaint
