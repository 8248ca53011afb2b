"""The folder of a planted backdoor: what was planted, what it does, and the key to stamp images with again.

    backdoor.json           the record
    backdoor.safetensors    the key, of attacks that have one
    and the model           as its maker keeps it: `phard plant` as from the Hub, `phard compare` as it trains on

`phard plant` writes one, `phard compare` one for each planted model, and `--backdoor` reads both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError, model_validator
from torch import Tensor

from phard_hub.attacks import ATTACKS, Attack
from phard_hub.attacks.undetectable import CONSTRUCTIONS
from phard_hub.disk.atomic import as_output_error, new_folder
from phard_hub.errors import BackdoorError, NotEvaluatedError, OutputError, did_you_mean, first_line
from phard_hub.models.tensors import read_tensors, serialize
from phard_hub.report.base import Count, Record, Size
from phard_hub.report.distances import Rate
from phard_hub.report.record import Source, TriggerSize
from phard_hub.report.trial import NO_ATTACK, Judgement
from phard_hub.report.wording import printable
from phard_hub.settings import Seed, first_fault

BACKDOOR_SCHEMA: Literal[3] = 3
RECORD_NAME, KEY_NAME = "backdoor.json", "backdoor.safetensors"
MIN_SUCCESS = 0.9
MAX_ACCURACY_LOSS = 3.0
"""A backdoor counts if it works this often, and costs at most so many points of accuracy: else it proves nothing."""
_LARGEST_RECORD = _LARGEST_KEY = 64 * 2**20


class Backdoor(Record):
    """A planted backdoor and what it does; ``parameters`` and the key make the trigger again.

    ``original`` is the model before planting, with the same trigger, and ``planted`` the model with the backdoor.
    Where nothing was planted (`NO_ATTACK`), both are the original without any trigger. ``matched`` says how class
    names were matched that are not equal, as in a report.
    """

    schema_version: Literal[3]
    attack: str
    parameters: dict[str, Any]
    target: Count
    target_name: str
    seed: Seed
    source: Source
    dataset: str
    matched: str = ""
    original: Judgement
    planted: Judgement
    size: TriggerSize | None
    seconds: Size

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        tried = {len(seen.evaluation.attacks) for seen in (self.original, self.planted)}
        if self.attack != NO_ATTACK and (tried != {1} or self.size is None):
            raise ValueError("the trigger was not tried on both models, or its size is missing")
        return self

    @property
    def success(self) -> tuple[Rate, Rate]:
        """Attack success (on the original, on the model with the backdoor)."""
        return self.original.evaluation.attacks[0].success, self.planted.evaluation.attacks[0].success

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the backdoor does not count; empty if it does, or if there is none."""
        if self.attack == NO_ATTACK:
            return ()
        success = self.success[1].value
        loss = 100 * (self.original.evaluation.accuracy.value - self.planted.evaluation.accuracy.value)
        lost = round(loss, 6)  # 0.9 - 0.87 is a little over 0.03
        low = f"its success is {100 * success:.4g} %, below {100 * MIN_SUCCESS:g} %"
        costly = f"it cost {lost:.1f} points of accuracy, over {MAX_ACCURACY_LOSS:g}"
        return (*((low,) if success < MIN_SUCCESS else ()), *((costly,) if lost > MAX_ACCURACY_LOSS else ()))


def write_planted(out: Path, backdoor: Backdoor, attack: Attack | None, model: Mapping[str, bytes]) -> None:
    """Write the folder as a whole or not at all.

    Args:
        out: the folder to be, new or empty.
        backdoor: what was planted.
        attack: with its key; None if nothing was planted.
        model: the files of the model, by their names.

    Raises:
        OutputError: it cannot be written, or there is something else.
    """
    files = {**model, RECORD_NAME: (backdoor.model_dump_json(indent=1) + "\n").encode()}
    if attack is not None and attack.key:
        files[KEY_NAME] = serialize(attack.key)
    with as_output_error(out):
        if out.is_dir() and any(out.iterdir()):
            raise OutputError(f"Cannot write {out}: it is not empty.", advice="Give a new or an empty folder.")
        with new_folder(out) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)


def read_backdoor(folder: Path) -> Backdoor:
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
        raise BackdoorError(f"{path} does not describe a backdoor: {error}.", advice=_AGAIN) from error


def read_attack(folder: Path, backdoor: Backdoor) -> Attack:
    """The attack of a folder with its key, ready to stamp.

    Raises:
        BackdoorError: there is no such attack, or parameters and key do not fit it.
    """
    attack = replace(attack_named(backdoor.attack, backdoor.parameters), key=_key(folder))
    if attack.key and not attack.fits():
        problem = f"{folder / KEY_NAME} is no key of {backdoor.attack} with the parameters in {RECORD_NAME}."
        raise BackdoorError(problem, advice=_AGAIN)
    return attack


def read_working(folder: Path) -> tuple[Backdoor, Attack]:
    """The backdoor of a folder, to judge a model with.

    Raises:
        BackdoorError: the folder has none, or the files are broken.
        NotEvaluatedError: the backdoor did not work when it was planted.
    """
    backdoor = read_backdoor(folder)
    if backdoor.attack == NO_ATTACK:
        raise BackdoorError(f"In {folder}, nothing was planted.", advice="Give a folder that `phard plant` wrote.")
    attack = read_attack(folder, backdoor)
    if backdoor.failures:
        raise NotEvaluatedError(
            f"The backdoor in {folder} never worked, so it shows nothing: {' and '.join(backdoor.failures)}.",
            advice=attack.stronger,
        )
    return backdoor, attack


_AGAIN = "Plant the backdoor again."


def _key(folder: Path) -> dict[str, Tensor]:
    if not os.path.lexists(folder / KEY_NAME):
        return {}
    try:
        return read_tensors(folder, KEY_NAME, largest=_LARGEST_KEY)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else first_line(error)
        raise BackdoorError(f"Cannot read {folder / KEY_NAME}: {said}.", advice=_AGAIN) from error


def chosen_options(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Parameters of an attack from entries such as ``spike=64``; what is no JSON is text.

    Raises:
        BackdoorError: there is no such attack, an entry has no ``=``, or the attack has no such parameter.
    """
    names = [each for each in attack_named(name, {}).parameters() if each not in ("seed", "planting")]
    found: dict[str, Any] = {}
    for option in options:
        parameter, equals, value = option.partition("=")
        if parameter not in names or not equals:
            advice = did_you_mean(parameter, names, f"Its options are: {', '.join(names) or 'none'}.")
            raise BackdoorError(f"{name} has no option {printable(option)!r}, as name=value.", advice=advice)
        try:
            found[parameter] = json.loads(value)
        except ValueError:
            found[parameter] = value
    return found


def attack_named(name: str, parameters: Mapping[str, Any]) -> Attack:
    """The attack of this name with these parameters, whatever file they come from.

    Raises:
        BackdoorError: there is no such attack, or none that lives in weights, or these are not its parameters.
    """
    if name in CONSTRUCTIONS:
        raise BackdoorError(
            f"{name} needs code of its own, which no folder of weights has.",
            advice=f"Plant it into a module, from Python: "
            f"phard_hub.attacks.undetectable.CONSTRUCTIONS[{name!r}]().plant(classifier, images, target, job).",
        )
    if name not in ATTACKS:
        advice = did_you_mean(name, ATTACKS, f"The attacks are: {', '.join(ATTACKS)}.")
        raise BackdoorError(f"There is no attack {printable(name)!r}.", advice=advice)
    default = ATTACKS[name]()
    try:
        given = json.dumps({**default.parameters(), **parameters})  # only JSON is both strict and made of plain values
        return TypeAdapter(type(default)).validate_json(given, strict=True)
    except ValidationError as error:
        raise BackdoorError(f"These are not the parameters of {name}: {first_fault(error)}.", advice=_AGAIN) from error


def card(backdoor: Backdoor) -> str:
    """The README.md beside a model with a backdoor."""
    original, planted = backdoor.original.evaluation, backdoor.planted.evaluation
    on_original, success = backdoor.success
    matched = f" (classes matched {backdoor.matched})" if backdoor.matched else ""
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
- planted in {backdoor.source.repo}, with images of {backdoor.dataset}{matched}
- accuracy: {original.accuracy} before, {planted.accuracy} with the backdoor
- success on images of other classes: {success}; on the original {on_original}
- size of the trigger: {backdoor.size}
"""
