"""One cell of a comparison: open the model, plant, defend, and judge at each stage.

What a cell makes lies in the folder of the comparison:

    cells/*.json    the trials, one file a cell
    planted/        models with a backdoor, shared by all defenses; each with its key and what was seen of it
    runs/           states of trainings that broke off; gone when the cell is done
    tracebacks/     where cells failed, if it was by a bug
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from filelock import FileLock

from phard_hub.attacks import Attack
from phard_hub.attacks.planted import BACKDOOR_SCHEMA, Backdoor, read_attack, read_backdoor, write_planted
from phard_hub.auditing import pull_and_audit
from phard_hub.defenses.base import hardening
from phard_hub.disk.atomic import discard, restore, write_bytes, write_text
from phard_hub.errors import BackdoorError, InterruptedRunError, PhardError, first_line
from phard_hub.evaluation.sizes import trigger_size
from phard_hub.evaluation.threats import defense_effectiveness
from phard_hub.hardware import default_accelerator
from phard_hub.images import LabelledImages
from phard_hub.images.data import Data, DataOptions, load_data
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, class_number
from phard_hub.models.loading import load
from phard_hub.models.tensors import read_fitting, serialize
from phard_hub.provenance import environment, source_of
from phard_hub.report.record import Hardening, Rating, Source
from phard_hub.report.trial import NO_ATTACK, TRIAL_SCHEMA, Judgement, Trial, slug
from phard_hub.training.guard import Guard
from phard_hub.trials.experiment import Plan

_WEIGHTS = "state.safetensors"
"""A planted model as it is in memory, which has other names for its weights than the files of some libraries."""


@dataclass(frozen=True)
class Opened:
    """A model and where it came from."""

    classifier: Classifier
    source: Source


OpenModel = Callable[[str], Opened]
"""From the name of a model in an experiment to the model; importable, because it is sent to other processes."""


def pulled(repo: str) -> Opened:
    """A model of the Hub or of a folder, pulled, audited and loaded."""
    audited = pull_and_audit(repo)
    return Opened(load(audited), source_of(audited.snapshot))


def cell_file(plan: Plan, out: Path) -> Path:
    """Where the trial of this cell is kept."""
    return out / "cells" / plan.cell.file_name


def read_trial(path: Path) -> Trial:
    """Read the trial of a cell.

    Raises:
        ReportError: the file is missing, no regular file, far too large, or holds no trial.
    """
    return Trial.read(path)


def run_trial(plan: Plan, out: Path, open_model: OpenModel = pulled) -> Trial:
    """Run one cell, and keep what happened in its file; what goes wrong ends this cell only.

    Raises:
        InterruptedRunError: the user stopped it; the same call continues.
        OutputError: the trial cannot be written.
    """
    path = cell_file(plan, out)
    with _lock(out, path.stem):
        if path.exists():  # another process was faster
            return read_trial(path)
        code_version()  # of what runs now: the checkout may move on meanwhile
        accelerator = default_accelerator()
        try:
            trial = _run(plan, out, open_model, accelerator)
        except InterruptedRunError:
            raise
        except PhardError as error:
            trial = failed_trial(plan, str(error), accelerator)
        except Exception as error:  # noqa: BLE001 - a comparison goes on, and shows what went wrong
            trial = failed_trial(plan, f"{type(error).__name__}: {first_line(error)}.", accelerator)
            (out / "tracebacks").mkdir(exist_ok=True)
            write_text(out / "tracebacks" / f"{path.stem}.txt", traceback.format_exc())
        keep(trial, path)
    return trial


def failed_trial(plan: Plan, problem: str, accelerator: Accelerator | None = None) -> Trial:
    """The trial of a cell that broke off, with the accelerator if its process still lives."""
    return Trial(**_head(plan, accelerator), status="failed", problem=" ".join(problem.split()))


def keep(trial: Trial, path: Path) -> None:
    """Write a trial as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, trial.to_json())


def _head(plan: Plan, accelerator: Accelerator | None) -> dict[str, Any]:
    """What is known of any trial."""
    return {
        "schema_version": TRIAL_SCHEMA,
        "cell": plan.cell,
        "config": plan.config,
        "created": datetime.now(UTC),
        "commit": code_version(),
        "environment": environment(accelerator) if accelerator else None,
    }


def _run(plan: Plan, out: Path, open_model: OpenModel, accelerator: Accelerator) -> Trial:
    opened, data = _opened(open_model, plan.repo, plan.data, plan.cell.seed)
    opened = replace(opened, classifier=opened.classifier.to(accelerator.device))
    job = Job(accelerator=accelerator, seed=plan.cell.seed)
    classifier, attack, backdoor = _planted(plan, out, opened, data, job)
    body: dict[str, Any] = {
        "source": opened.source,
        "dataset": data.name,
        "target": None if attack is None else backdoor.target,
        "size": backdoor.size,
        "original": backdoor.original,
        "before": backdoor.planted,
        "seconds": {"planting": backdoor.seconds},
    }
    if backdoor.failures:
        problem = f"{' and '.join(backdoor.failures)}."
        return Trial(**_head(plan, accelerator), **body, status="no backdoor", problem=problem)
    started = time.perf_counter()
    state = out / "runs" / _hash(plan.config)
    defended, body["hardening"] = _defended(plan, classifier, data, replace(job, folder=state))
    body["seconds"]["hardening"] = time.perf_counter() - started
    started = time.perf_counter()
    if defended is None:
        body["after"] = backdoor.planted
    else:
        body["after"] = plan.judging.judge(
            defended,
            data.train,
            data.test,
            job,
            attack=attack,
            target=backdoor.target,
            dormant=True,
            distances=True,
            beside=backdoor.planted.distances,
        )
    if attack is not None and plan.defense is not None and plan.judging.reactivates:
        body["twin"] = _twin(plan, out, opened.classifier, attack, data, replace(job, folder=state))
    body["seconds"]["judging"] = time.perf_counter() - started
    if attack is not None:
        body["effectiveness"] = _rating(backdoor.planted, body["after"])
    discard(state)
    return Trial(**_head(plan, accelerator), **body, status="done")


@lru_cache(maxsize=1)
def _opened(open_model: OpenModel, repo: str, data: DataOptions, seed: int) -> tuple[Opened, Data]:
    """A model and its images; the next cell mostly needs the same."""
    opened = open_model(repo)
    return opened, load_data(opened.classifier, data, seed)


def _planted(plan: Plan, out: Path, opened: Opened, data: Data, job: Job) -> tuple[Classifier, Attack | None, Backdoor]:
    """The planted model that all defenses of this cell's attack, seed and model share; made once."""
    name = f"{plan.cell.model}~{plan.cell.attack}~seed{plan.cell.seed}~{_hash(plan.base)}"
    folder, state = out / "planted" / name, out / "runs" / name
    with _lock(out, name):
        restore(folder)
        if not folder.is_dir():
            _plant(plan, folder, opened, data, replace(job, folder=state))
        discard(state)  # also where a kill came after the planted model was there
    try:
        backdoor = read_backdoor(folder)
        if plan.attack is None:
            return opened.classifier, None, backdoor
        attack = read_attack(folder, backdoor)
        classifier = opened.classifier.clone()
        classifier.network.load_state_dict(read_fitting(folder, _WEIGHTS, classifier.network.state_dict()))
    except BackdoorError as error:
        raise _broken(folder, str(error).removesuffix(".")) from error
    except OSError as error:
        raise _broken(folder, f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise _broken(folder, first_line(error)) from error
    return classifier, attack, backdoor


def _broken(folder: Path, why: str) -> BackdoorError:
    advice = "Remove it, and run the cell again with --retry-failed."
    return BackdoorError(f"The planted model in {folder} cannot be used: {why}.", advice=advice)


def _plant(plan: Plan, folder: Path, opened: Opened, data: Data, job: Job) -> None:
    """Plant, judge, and write the folder as a whole."""
    started = time.perf_counter()
    original = opened.classifier
    target = class_number(plan.target, original.labels)
    judge = partial(plan.judging.judge, images=data.train, test=data.test, job=job, target=target)
    model: dict[str, bytes] = {}
    size, attack = None, None
    if plan.attack is None:
        before = reference = judge(original, attack=None, dormant=False, distances=True)
    else:
        planted = plan.attack.plant(original, data.train, target, job)
        attack = planted.attack
        size = trigger_size(attack, data.test, job.accelerator.device)
        reference = judge(original, attack=attack, dormant=False, distances=True)
        before = judge(planted.classifier, attack=attack, dormant=False, distances=True, beside=reference.distances)
        model = {_WEIGHTS: serialize(planted.classifier.network.state_dict())}
    backdoor = Backdoor(
        schema_version=BACKDOOR_SCHEMA,
        attack=attack.name if attack else NO_ATTACK,
        parameters=attack.parameters() if attack else {},
        target=target,
        target_name=original.labels[target],
        seed=job.seed,
        source=opened.source,
        dataset=data.name,
        original=reference,
        planted=before,
        size=size,
        seconds=time.perf_counter() - started,
    )
    write_planted(folder, backdoor, attack, model)


def _twin(plan: Plan, out: Path, honest: Classifier, attack: Attack, data: Data, job: Job) -> Judgement:
    """The honest model after the same defense, made once for all attacks, and what re-activation does to it."""
    name = f"{plan.cell.model}~{plan.cell.defense}~seed{plan.cell.seed}~{_hash(plan.without_attack)}"
    path = out / "twins" / f"{slug(name)}.safetensors"
    twin = honest.clone()
    with _lock(out, path.stem):
        if not path.exists():
            made, _ = _defended(plan, honest, data, job.part("twin"))
            assert made is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, serialize(made.network.state_dict()))
    twin.network.load_state_dict(read_fitting(path.parent, path.name, twin.network.state_dict()))
    target = class_number(plan.target, honest.labels)
    return plan.judging.judge(
        twin,
        data.train,
        data.test,
        replace(job, folder=None),
        attack=attack,
        target=target,
        dormant=True,
        distances=False,
    )


def _defended(plan: Plan, planted: Classifier, data: Data, job: Job) -> tuple[Classifier | None, Hardening | None]:
    if plan.defense is None:
        return None, None
    train, validation = defenders_images(data, plan.cell.data_share, plan.cell.seed)
    if job.folder:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
    guard = Guard.of(planted, validation, job.accelerator.device)
    made = plan.defense.harden(planted, train, job.part("defending"), guard)
    return made.classifier, hardening(plan.defense, made.phases, train, job)


def defenders_images(data: Data, share: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """What the defender has: this share of the training images, and images for the accuracy guard.

    With less than all training images, the guard's are at most a tenth as many: a defender with few images has few of
    those as well.
    """
    if share == 1:
        return data.train, data.validation
    train = data.train.split(share, seed)[1]
    guard = max(len(data.validation.classes), round(len(train) / 10))
    if guard >= len(data.validation):
        return train, data.validation
    return train, data.validation.split(guard, seed)[1]


def _rating(before: Judgement, after: Judgement) -> Rating:
    accuracy = before.evaluation.accuracy, after.evaluation.accuracy
    return defense_effectiveness(accuracy, (before.evaluation.attacks[0].success, after.evaluation.attacks[0].success))


def _hash(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def _lock(out: Path, name: str) -> FileLock:
    """Of one cell or planted model: whoever comes second waits, whichever command started it."""
    folder = out / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock")


@cache
def code_version() -> str | None:
    """The commit of the checkout that this package lies in, with ``-dirty`` if it was changed; None elsewhere."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=True)  # noqa: S603, S607
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:  # installed, in somebody else's checkout perhaps
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", ".") else commit
