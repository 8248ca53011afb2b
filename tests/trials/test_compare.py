"""Comparisons end to end: every cell once, stopped and continued, with failures that stay visible."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from phard_hub.defenses import DEFENSES
from phard_hub.errors import CheckpointError, ExperimentError
from phard_hub.evaluation.threats import defense_effectiveness
from phard_hub.images.data import Data
from phard_hub.report.record import Source
from phard_hub.report.trial import Trial
from phard_hub.trials.cell import Opened, cell_file, code_version, defenders_images, pulled, run_trial
from phard_hub.trials.compare import compare
from phard_hub.trials.experiment import Plan, read_experiment
from tests.command import Phard, hear_interrupts
from tests.jobs import files, write_images
from tests.small import noise_images

ROOT = Path(__file__).parents[2]
EXPERIMENT = """
models = ["model"]
attacks = ["1977"]
images = "animals"
target = "dog"
preset = "cheapest"
data_shares = [0.5]
[planting]
steps = 40
[defenses.none]
[defenses.fine-tuning]
schedule = { steps = 10, batch = 16 }
[defenses.pervasive]
forgetting = { schedule = { steps = 6, batch = 16 } }
bank = { schedule = { steps = 12, batch = 16 } }
at_once = { schedule = { steps = 0 } }
[defenses.broken]
defense = "adversarial"
parts.knots = 1_000_000_000_000 # more than fits into any memory
[evaluation]
relearning = { steps = [2, 20], seeds = 1, schedule = { batch = 16, learning_rate = 0.05 } }
perturbing = { steps = 5 }
"""
CELLS = {f"model~1977~{defense}~0.5~seed0.json" for defense in ("none", "fine-tuning", "pervasive", "broken")}


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, images and an experiment, side by side."""
    place = tmp_path_factory.mktemp("experiment")
    shutil.copytree(tiny_checkpoint, place / "model")
    write_images(place / "animals")
    (place / "experiment.toml").write_text(EXPERIMENT)
    return place


def command(folder: Path, out: Path) -> list[str]:
    return [*map(str, ("compare", folder / "experiment.toml", "--out", out, "--workers", 2))]


def numbers(trial: Trial) -> dict[str, Any]:
    """What has to be the same whenever and wherever a cell is run; the environment names what else a process uses."""
    values = trial.model_dump(exclude={"created", "seconds", "environment"})
    for phase in values["hardening"]["phases"] if values["hardening"] else ():
        phase.pop("seconds")
    return values


def test_a_comparison_is_stopped_and_continued_with_two_workers(folder: Path, tmp_path: Path, phard: Phard) -> None:
    out = tmp_path / "comparison"
    stopped = subprocess.Popen(
        [sys.executable, "-m", "phard_hub", *command(folder, out)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    end = time.monotonic() + 300
    while not list(out.glob("cells/*.json")):
        assert stopped.poll() is None, stopped.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 3
    assert "Traceback" not in said
    assert "cells done. Run the same command to continue." in said
    kept = {path: path.read_bytes() for path in out.glob("cells/*.json")}
    assert 0 < len(kept) < len(CELLS)

    done = phard(*command(folder, out))
    assert "Traceback" not in done.err
    assert done.code == 3  # one defense cannot work
    assert {path.name for path in out.glob("cells/*")} == CELLS
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert {path.name for path in out.iterdir()} == {
        *("cells", "planted", "runs", "tracebacks", "twins", ".locks", "comparison.md", "comparison.png")
    }
    assert files(out / "runs") == set()
    assert files(out / "tracebacks") == {"model~1977~broken~0.5~seed0.txt"}
    assert len(list((out / "planted").iterdir())) == 1  # shared by all
    assert done.out.splitlines()[2].startswith("4 cells: 3 done, 1 failed. Data: animals.")
    assert "| model, 1977, broken with 50 % of the images, seed 0 | RuntimeError: " in done.out

    # The same cell alone, in this process and not interrupted: the same numbers.
    plans = read_experiment(folder / "experiment.toml")
    alone = next(plan for plan in plans if plan.cell.file_name == "model~1977~pervasive~0.5~seed0.json")
    run_trial(alone, tmp_path / "alone")
    assert numbers(Trial.read(cell_file(alone, tmp_path / "alone"))) == numbers(Trial.read(cell_file(alone, out)))
    check(plans, out)
    check_resuming(plans, out)


def check(plans: tuple[Plan, ...], out: Path) -> None:
    """What the cells say."""
    trials = {plan.cell.defense: Trial.read(cell_file(plan, out)) for plan in plans}
    for plan, trial in zip(plans, trials.values(), strict=True):
        assert (trial.cell, trial.config) == (plan.cell, plan.config)
        assert (trial.commit is None) == (code_version() is None)
        assert trial.environment is not None
        assert trial.environment.versions.keys() >= {"python", "torch", "phard-hub"}
        assert str(out.parent) not in trial.to_json()
    assert (trials["broken"].status, trials["broken"].after) == ("failed", None)
    nothing, tuned = trials["none"], trials["fine-tuning"]
    assert nothing.after == nothing.before == tuned.before
    assert nothing.effectiveness is not None
    assert nothing.effectiveness.value == 0.5
    assert tuned.hardening is not None
    assert tuned.hardening.images == 34  # of 67
    assert tuned.original is not None
    assert tuned.before is not None
    assert tuned.after is not None
    assert tuned.twin is not None
    assert tuned.original.relearned == ()
    for judged in (tuned.twin, tuned.after):
        assert [each.steps for each in judged.relearned] == [2, 20]
        assert judged.perturbed is not None
    assert tuned.before.relearned == ()  # it is awake
    seen = [judged.evaluation for judged in (tuned.before, tuned.after)]
    assert tuned.effectiveness == defense_effectiveness(
        (seen[0].accuracy, seen[1].accuracy), (seen[0].attacks[0].success, seen[1].attacks[0].success)
    )
    assert tuned.size is not None
    assert tuned.size.l2 == pytest.approx(seen[0].attacks[0].size, rel=0.2)


def check_resuming(plans: tuple[Plan, ...], out: Path) -> None:
    """Nothing is run again, but what failed, on demand; and no cell is taken for one of other settings."""
    counts: list[int] = []
    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    trials = compare(plans, out, progress=lambda _what, done, _total: counts.append(done))
    assert counts == [4]
    assert [trial.cell for trial in trials] == [plan.cell for plan in plans]
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    changed = tuple(replace(plan, target="owl") for plan in plans)
    with pytest.raises(ExperimentError, match=r"was made with other settings: target\. Give another --out"):
        compare(changed, out)
    broken = [plan for plan in plans if plan.cell.defense == "broken"][:1]
    (planted,) = (out / "planted").iterdir()
    (out / "runs" / planted.name).mkdir()  # killed after the model was planted
    (again,) = compare(broken, out, retry_failed=True)
    assert again.status == "failed"
    assert not (out / "runs" / planted.name).exists()
    assert before[cell_file(broken[0], out)] != cell_file(broken[0], out).stat().st_mtime_ns


def one(folder: Path, text: str = EXPERIMENT, **changes: Any) -> Plan:
    """The first plan of an experiment."""
    path = folder / "other.toml"
    path.write_text(text)
    return replace(read_experiment(path)[0], **changes)


def refuse(repo: str) -> Opened:
    raise CheckpointError(f"{repo} does not fit.", advice="Take another.")


def test_an_error_fails_its_cell_in_one_line(folder: Path, tmp_path: Path) -> None:
    trial = run_trial(one(folder), tmp_path, refuse)
    assert (trial.status, trial.problem) == ("failed", f"{folder / 'model'} does not fit. Take another.")
    assert Trial.read(cell_file(one(folder), tmp_path)) == trial


def test_a_backdoor_that_did_not_work_is_not_defended_against(folder: Path, tmp_path: Path) -> None:
    text = EXPERIMENT.replace("steps = 40", "steps = 1").replace("[defenses.none]\n", "")
    trial = run_trial(one(folder, text), tmp_path)
    assert (trial.status, trial.after, trial.hardening, trial.effectiveness) == ("no backdoor", None, None, None)
    assert trial.problem.startswith("its success is ")
    assert trial.before is not None


def test_without_an_attack_natural_vulnerability_is_looked_at(folder: Path, tmp_path: Path) -> None:
    text = EXPERIMENT.replace('"1977"', '"none"').replace("[defenses.none]\n", "")
    text += 'natural = ["blend", "refool-ghost"]\nnatural_draws = 2\n'
    trial = run_trial(one(folder, text), tmp_path)
    assert (trial.status, trial.problem, trial.target, trial.size) == ("done", "", None, None)
    assert trial.before is not None
    assert trial.after is not None
    assert trial.original == trial.before
    assert [found.name for found in trial.after.natural] == ["blend", "refool-ghost"]
    assert trial.outcome is None


def other_model(repo: str, folder: Path) -> Opened:
    """A model that no folder holds."""
    opened = pulled(str(folder / "model"))
    opened.classifier.labels = ("owl", "fox", "cat", "dog")
    return Opened(opened.classifier, Source(repo=repo))


def test_models_may_come_from_anywhere(folder: Path, tmp_path: Path) -> None:
    plan = replace(one(folder), repo="a model of my own")
    trial = run_trial(plan, tmp_path, partial(other_model, folder=folder))
    assert trial.status == "done"
    assert trial.source == Source(repo="a model of my own")
    assert trial.target == 3


@pytest.mark.parametrize(("share", "expected"), [(1.0, (300, 60)), (0.5, (150, 15)), (0.02, (6, 3))])
def test_a_defender_with_few_images_has_few_to_guard_with(share: float, expected: tuple[int, int]) -> None:
    images = noise_images(100, 3, (1, 8, 8))
    data = Data(images, noise_images(20, 3, (1, 8, 8)), images, "noise")
    train, guard = defenders_images(data, share, 0)
    assert (len(train), len(guard)) == expected
    assert torch.bincount(train.labels).tolist() == [expected[0] // 3] * 3
    assert torch.bincount(guard.labels).tolist() == [expected[1] // 3] * 3
    again, _ = defenders_images(data, share, 0)
    assert torch.equal(again.pixels, train.pixels)


def test_wrong_use_is_one_line(folder: Path, tmp_path: Path, phard: Phard) -> None:
    text = (folder / "experiment.toml").read_text()
    (tmp_path / "wrong.toml").write_text(text.replace("[defenses.none]", "[defenses.nothing]"))
    done = phard("compare", tmp_path / "wrong.toml", "--out", tmp_path / "out")
    assert done.code == 2
    known = ", ".join(("none", *DEFENSES))
    assert f"defenses.nothing: there is no 'nothing'. There are: {known}." in done.complaint
    assert not (tmp_path / "out").exists()


def test_the_version_of_the_code_is_that_of_the_checkout() -> None:
    version = code_version.__wrapped__()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if head.returncode:
        assert version is None
    else:
        assert version is not None
        assert version.removesuffix("-dirty") == head.stdout.strip()
