"""What is about to be deployed, as plain data, and whether it is what a report speaks of.

A report says nothing about files that lie beside it by chance. So the gate is given the list of files, with their
hashes, and refuses whatever a library could load that the report is not about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field

from phard_hub.report.base import Record
from phard_hub.report.record import REPORT_NAME, Report, State
from phard_hub.report.wording import printable

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
SIGNATURE_NAME = "model.sig"
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_TEXTS = ("LICENSE", "NOTICE")
# Kinds of files that no library makes a model of; what begins with a dot is not looked for by any.
_TEXT_KINDS = (".md", ".txt", ".rst", ".html", ".pdf", ".csv", ".yaml", ".yml", ".toml", ".lock", ".pem", ".pub")
_PICTURE_KINDS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
_SHOWN = 3

SignatureState = Literal["absent", "unchecked", "holds", "broken", "not_evaluated"]


class Signature(Record):
    """Whether a signature was found, and whether it holds for the files that were found."""

    state: SignatureState = "absent"
    message: str = Field(default="", description="by which key it holds, or why it does not")


class Deployed(Record):
    """What was found of the files that are about to be deployed."""

    place: str = Field(description="the folder, or the Hub's id and commit as org/model@commit")
    files: dict[str, str] = Field(description="sha256 by path, of those that a signature covers")
    others: tuple[str, ...] = Field(default=(), description="paths of all other files")
    unreadable: dict[str, str] = Field(default_factory=dict, description="why a path could not be read, by path")
    signature: Signature = Signature()


def is_copied(name: str) -> bool:
    """Whether a file of this name goes along from a checkpoint to what is made of it."""
    return name in CONFIGS or (name.startswith(_TEXTS) and "/" not in name)


def is_signed(path: str) -> bool:
    """Whether a signature covers a file of this path: those do that machines read, and that the report speaks of.

    Card and plots are for people, and made of the report; a push writes the card anew, to keep what the owner of a
    repository has in it.
    """
    return is_copied(path) or path in (WEIGHTS_NAME, REPORT_NAME)


def other_weights(deployed: Deployed, report: Report, state: State) -> str:
    """Why the weights are not those that a report is about; empty if they are.

    A model that was only measured may lie there as a release has it or as it was pulled: the same tensors.
    """
    found, measured = deployed.files.get(WEIGHTS_NAME), {state.weights_sha256}
    if state is report.before and WEIGHTS_NAME in report.source.files:
        measured.add(report.source.files[WEIGHTS_NAME])
    if found in measured:
        return ""
    about = f"the report is about {state.weights_sha256[:12]}"
    if found is not None:
        return f"the weights are {found[:12]}, {about}"
    why = deployed.unreadable.get(WEIGHTS_NAME, "it is not there")
    return f"no weights could be looked at: {WEIGHTS_NAME}: {why}; {about}"


def other_files(deployed: Deployed, report: Report) -> str:
    """Which files a report does not speak of, though a library might load them; empty if there are none."""
    faults = list(_faults(deployed, report.source.files))
    shown = "; ".join(printable(fault, 120) for fault in faults[:_SHOWN])
    return f"{shown}; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else shown


def _faults(deployed: Deployed, spoken_of: Mapping[str, str]) -> Iterator[str]:
    for name in CONFIGS:
        if name not in deployed.unreadable and (fault := _config_fault(name, deployed.files, spoken_of)):
            yield fault
    yield from (f"{name}: {why}" for name, why in deployed.unreadable.items() if name != WEIGHTS_NAME)
    texts = (name for name, found in deployed.files.items() if name.startswith(_TEXTS) and spoken_of.get(name) != found)
    for name in (*texts, *deployed.others):
        if not _is_harmless(name):
            yield f"the report does not speak of {name}"


def _config_fault(name: str, files: Mapping[str, str], spoken_of: Mapping[str, str]) -> str:
    expected, found = spoken_of.get(name), files.get(name)
    if found is None:
        return f"{name} is not there" if expected or name == "config.json" else ""
    if expected is None:
        return f"the report speaks of no {name}"
    return "" if found == expected else f"{name} is not the one that the report is about"


def _is_harmless(path: str) -> bool:
    """Whether no library makes a model of a file of this name."""
    suffix = PurePosixPath(path).suffix.lower()
    return path.startswith(".") or suffix in (*_TEXT_KINDS, *_PICTURE_KINDS) or (not suffix and path.startswith(_TEXTS))
