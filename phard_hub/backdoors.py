"""Plant a known backdoor in a model, and keep the model together with the key to judge it by.

    config.json, *processor_config.json    as they were pulled
    LICENSE*, NOTICE*                      likewise
    model.safetensors                      the weights with the backdoor
    backdoor.json                          the attack with its parameters, its target, and what it did
    backdoor.safetensors                   what the attack learned, if it learns anything
    README.md                              a card that says what this is

A backdoor that does not work is no evidence of anything: what hardening "removes" was never there. So it
counts only if it has `MIN_SUCCESS` on images of other classes and cost at most `MAX_ACCURACY_LOSS`.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError
from torch import Tensor, nn
from transformers import PreTrainedModel

from phard_hub.attacks import ATTACKS, Attack
from phard_hub.attacks.planting import PLANTING, plant
from phard_hub.auditing import audit
from phard_hub.errors import BackdoorError, InputError, NotEvaluatedError, OutputError, first_line
from phard_hub.evaluation.sizes import trigger_size
from phard_hub.evaluation.threats import Threat, attack_outcome, evaluate
from phard_hub.files import as_output_error, new_folder
from phard_hub.hub.pull import pull
from phard_hub.hub.snapshot import Snapshot
from phard_hub.images import LabelledImages
from phard_hub.job import Job, Progress, silent
from phard_hub.models.classifier import Classifier
from phard_hub.models.loading import load
from phard_hub.models.tensors import read_tensors, serialize
from phard_hub.pipeline import DataOptions, default_accelerator, load_data
from phard_hub.release.release import check_writable, copied
from phard_hub.report.base import Record
from phard_hub.report.record import AttackOutcome, Rate, TriggerSize
from phard_hub.report.wording import printable
from phard_hub.settings import Seed, Share, first_fault, settings
from phard_hub.training.schedule import Schedule

RECORD_NAME, KEY_NAME = "backdoor.json", "backdoor.safetensors"
MIN_SUCCESS = 0.9
MAX_ACCURACY_LOSS = 3.0
_LARGEST_RECORD, _LARGEST_KEY = 2**20, 64 * 2**20


@settings
class Planting:
    """What is planted, and how.

    Attributes:
        attack: a name of `ATTACKS`.
        target: the class that the trigger is meant to produce, by its name or its number.
        poison_rate: share of stamped images (see `plant`); None takes the attack's own.
        from_scratch: whether the weights are drawn anew first, so that the model never was without it.
        steps: of training.
        learning_rate: peak of it.
        seed: of the trigger, the weights drawn anew, and the batches.
    """

    attack: str
    target: str
    poison_rate: Share | None = None
    from_scratch: bool = False
    steps: PositiveInt = 1000
    learning_rate: PositiveFloat = PLANTING.learning_rate
    seed: Seed = 0

    @property
    def schedule(self) -> Schedule:
        """How long and how fast is trained."""
        return replace(PLANTING, steps=self.steps, learning_rate=self.learning_rate)


class Backdoor(Record):
    """A planted backdoor and what it does; ``parameters`` and the key make the trigger again."""

    schema_version: Literal[1]
    attack: str
    parameters: dict[str, Any]
    target: NonNegativeInt
    target_name: str
    poison_rate: float
    from_scratch: bool
    schedule: dict[str, Any]
    seed: int
    source: str
    commit: str | None
    dataset: str
    accuracy_before: Rate
    accuracy: Rate
    outcome: AttackOutcome
    size: TriggerSize

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the backdoor does not count; empty if it does."""
        return failures(self.outcome.success, self.accuracy_before, self.accuracy)


def failures(success: Rate, accuracy_before: Rate, accuracy: Rate) -> tuple[str, ...]:
    """Why a backdoor of this success and cost does not count; empty if it does."""
    lost = round(100 * (accuracy_before.value - accuracy.value), 6)  # 0.9 - 0.87 is a little over 0.03
    low = f"its success is {100 * success.value:.4g} %, below {100 * MIN_SUCCESS:g} %"
    costly = f"it cost {lost:.1f} points of accuracy, over {MAX_ACCURACY_LOSS:g}"
    return (*((low,) if success.value < MIN_SUCCESS else ()), *((costly,) if lost > MAX_ACCURACY_LOSS else ()))


def plant_backdoor(
    repo: str,
    data: DataOptions,
    out: Path,
    planting: Planting,
    *,
    revision: str | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress = silent,
) -> Backdoor:
    """Pull, audit and load a model, train a backdoor into it, and write the folder; the input is untouched.

    Args:
        repo: Hub id or local folder.
        data: which images to poison, and which to judge with.
        out: the folder to be, new or empty.
        planting: what is planted.
        revision: branch, tag or commit of a Hub id.
        accelerator: of accelerate; by default one that uses what the machine has.
        progress: told what is being done.

    Returns:
        What was planted; it is written even if it does not count (see `Backdoor.failures`).

    Raises:
        PhardError: see `phard_hub.errors`.
    """
    check_writable(out)
    attack = _attack(planting.attack, {"seed": planting.seed})
    accelerator = accelerator or default_accelerator()
    audited = audit(pull(repo, revision))
    original = load(audited).to(accelerator.device)
    target = class_number(planting.target, original.labels)
    images = load_data(original, data, planting.seed, progress)
    job = Job(accelerator=accelerator, seed=planting.seed, progress=progress)
    attack, planted = implant(original, images.train, attack, target, planting, job)
    threat = Threat(name=attack.name, trigger=attack, target=target)
    backdoor = Backdoor(
        schema_version=1,
        attack=planting.attack,
        parameters=attack.parameters(),
        target=target,
        target_name=original.labels[target],
        poison_rate=attack.poison_rate if planting.poison_rate is None else planting.poison_rate,
        from_scratch=planting.from_scratch,
        schedule=asdict(planting.schedule),
        seed=planting.seed,
        source=audited.snapshot.repo if audited.snapshot.commit else Path(repo).resolve().name,
        commit=audited.snapshot.commit,
        dataset=images.name,
        accuracy_before=evaluate(original, images.test, progress=progress).accuracy,
        accuracy=evaluate(planted, images.test, progress=progress).accuracy,
        outcome=attack_outcome(planted, images.test, threat, reference=original),
        size=trigger_size(attack, images.test, accelerator.device),
    )
    job.first(lambda: write_backdoor(out, backdoor, attack, planted, audited.snapshot))
    return backdoor


def implant(
    original: Classifier,
    images: LabelledImages,
    attack: Attack,
    target: int,
    planting: Planting,
    job: Job,
) -> tuple[Attack, Classifier]:
    """The attack with its key, and a copy of the classifier with the backdoor; both steps of planting.

    Args:
        original: what it is planted in; it is left as it was.
        images: the attacker's.
        attack: without its key.
        target: the class that the trigger is meant to produce.
        planting: how; its attack and target are not looked at.
        job: its seed is that of the weights drawn anew and of the batches; a state of it is continued.
    """
    start = reinitialised(original, job.seed) if planting.from_scratch else original
    attack = attack.fit(start, images, target, progress=job.progress)
    planted = plant(
        start,
        images,
        attack,
        target=target,
        job=job,
        poison_rate=planting.poison_rate,
        schedule=planting.schedule,
    )
    return attack, planted


def reinitialised(classifier: Classifier, seed: int) -> Classifier:
    """A copy with new weights: of a model of transformers drawn as its class draws them, of others layer by layer.

    Raises:
        InputError: another network has weights outside of layers that can draw them.
    """
    copy = classifier.clone()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(classifier.network, PreTrainedModel):
            copy.network = type(classifier.network)(classifier.network.config)
        else:
            _draw_layers(copy.network)
    return copy.to(classifier.device)


def _draw_layers(network: nn.Module) -> None:
    for layer in network.modules():
        if next(layer.parameters(recurse=False), None) is None:
            continue
        draw = getattr(layer, "reset_parameters", None)
        if draw is None:
            kind = type(layer).__name__
            raise InputError(f"The weights of a {kind} cannot be drawn anew.", advice="Start from the model's weights.")
        draw()


def write_backdoor(out: Path, backdoor: Backdoor, attack: Attack, planted: Classifier, source: Snapshot) -> None:
    """Write the folder as a whole or not at all.

    Args:
        out: the folder to be, new or empty.
        backdoor: what was planted.
        attack: with its key.
        planted: the model with the backdoor.
        source: the model without it, for its config, processor and license.

    Raises:
        CheckpointError: the source has no config, or changed since it was pulled.
        OutputError: it cannot be written, or there is something else.
    """
    files = copied(source.folder, source.files) | {
        "model.safetensors": serialize(planted.weights()),
        RECORD_NAME: (backdoor.model_dump_json(indent=1) + "\n").encode(),
        "README.md": _card(backdoor).encode(),
    }
    if attack.key:
        files[KEY_NAME] = serialize(attack.key)
    with as_output_error(out):
        if out.is_dir() and any(out.iterdir()):
            raise OutputError(f"Cannot write {out}: it is not empty.", advice="Give a new or an empty folder.")
        with new_folder(out) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)


def read_backdoor(folder: Path) -> Threat:
    """The trigger and the target of a backdoor, to judge a model with.

    Raises:
        BackdoorError: the folder has none, or the files are broken.
        NotEvaluatedError: the backdoor did not work when it was planted.
    """
    backdoor = read_record(folder)
    if backdoor.failures:
        raise NotEvaluatedError(
            f"The backdoor in {folder} never worked, so it shows nothing: {' and '.join(backdoor.failures)}.",
            advice="Plant it again, with more steps or a higher poison rate.",
        )
    attack = replace(_attack(backdoor.attack, backdoor.parameters), key=_key(folder))
    if attack.key and not attack.fits():
        raise BackdoorError(
            f"{folder / KEY_NAME} is no key of {backdoor.attack} with the parameters in {RECORD_NAME}.",
            advice="Plant the backdoor again.",
        )
    return Threat(name=attack.name, trigger=attack, target=backdoor.target)


def _key(folder: Path) -> dict[str, Tensor]:
    if not os.path.lexists(folder / KEY_NAME):
        return {}
    try:
        return read_tensors(folder, KEY_NAME, largest=_LARGEST_KEY)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else first_line(error)
        problem = f"Cannot read {folder / KEY_NAME}: {said}."
        raise BackdoorError(problem, advice="Plant the backdoor again.") from error


def read_record(folder: Path) -> Backdoor:
    """What is known of the backdoor in a folder.

    Raises:
        BackdoorError: the folder has none, or the record is broken.
    """
    path = folder / RECORD_NAME
    try:
        return Backdoor.read_file(path, _LARGEST_RECORD)
    except OSError as error:
        raise BackdoorError(
            f"Cannot read {path}: {error.strerror}.", advice="Give a folder that `phard plant` wrote."
        ) from error
    except ValueError as error:
        raise BackdoorError(
            f"{path} does not describe a backdoor: {error}.", advice="Plant the backdoor again."
        ) from error


def _attack(name: str, parameters: dict[str, Any]) -> Attack:
    """The attack of this name with these parameters, whatever file they come from."""
    if name not in ATTACKS:
        near = difflib.get_close_matches(name, ATTACKS, n=1)
        advice = f"Did you mean {near[0]!r}?" if near else f"The attacks are: {', '.join(ATTACKS)}."
        raise BackdoorError(f"There is no attack {printable(name)!r}.", advice=advice)
    default = ATTACKS[name]()
    try:
        given = json.dumps(default.parameters() | parameters)  # only JSON is both strict and made of plain values
        return TypeAdapter(type(default)).validate_json(given, strict=True)
    except ValidationError as error:
        raise BackdoorError(
            f"These are not the parameters of {name}: {first_fault(error)}.", advice="Plant the backdoor again."
        ) from error


def class_number(given: str, labels: Sequence[str]) -> int:
    """A class by its name, or else by its number.

    Raises:
        InputError: there is no such class.
    """
    names = [label.casefold() for label in labels]
    if given.casefold() in names:
        return names.index(given.casefold())
    if given.isdecimal() and int(given) < len(labels):
        return int(given)
    near = difflib.get_close_matches(given.casefold(), names, n=1)
    advice = f"Did you mean {labels[names.index(near[0])]!r}?" if near else f"Give 0 to {len(labels) - 1}, or a name."
    raise InputError(f"The model has no class {given!r}.", advice=advice)


def _card(backdoor: Backdoor) -> str:
    outcome = backdoor.outcome
    flaw = f"It does not count as evidence: {' and '.join(backdoor.failures)}.\n" if backdoor.failures else ""
    return f"""\
---
library_name: transformers
tags: [backdoor, phard-hub]
---

# A model with a backdoor, planted on purpose

Do not deploy it. It exists to measure what defenses leave of a known backdoor. {flaw}
- attack: {backdoor.attack} {json.dumps(backdoor.parameters)}
- target: {backdoor.target_name}
- planted in {backdoor.source}, with images of {backdoor.dataset}
- accuracy: {backdoor.accuracy_before} before, {backdoor.accuracy} with the backdoor
- success on images of other classes: {outcome.success}; on the original {outcome.reference}
- size of the trigger: {backdoor.size}
"""
