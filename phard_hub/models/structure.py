"""A checkpoint's tensors against the library's own class: none too many, none too few, none of another shape.

The class is built without memory for its weights, so this costs little, whatever sizes the config names.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import safe_open

from phard_hub.errors import CheckpointError, first_line
from phard_hub.hub.audit import Audit
from phard_hub.hub.pull import Snapshot
from phard_hub.models.timm_format import WEIGHTS, converted_by_timm, import_timm, is_timm, names_timm
from phard_hub.report.findings import error, warning
from phard_hub.report.record import Finding

_Shape = tuple[int, ...]


def check_structure(audit: Audit) -> Audit:
    """Add to an audit how the weights differ from what the class of the config has.

    Where the audit has errors nothing is built, for the library would do what the errors are about.
    """
    if audit.errors:
        return audit
    return replace(audit, findings=(*audit.findings, *_compare(audit.snapshot)))


def _compare(snapshot: Snapshot) -> Iterator[Finding]:
    try:
        if names_timm(snapshot):
            import_timm()
        with _quiet():
            differences = _of_timm(snapshot) if is_timm(snapshot) else _of_transformers(snapshot)
    except CheckpointError as refusal:
        yield error("PH-A19", "config.json", refusal.problem, refusal.advice)
    except Exception as refusal:  # noqa: BLE001 - the libraries' classes raise all kinds of errors at hostile values
        advice = "Give a checkpoint of an image classifier that the installed library knows, with its own config.json."
        yield error("PH-A19", "config.json", first_line(refusal), advice)
    else:
        yield from differences.findings()


@dataclass(frozen=True)
class _Differences:
    """How tensors differ from those of a class; ``accepted`` if the library knows them from older versions."""

    unexpected: list[str]
    missing: list[str]
    mismatched: list[str]
    accepted: bool = False

    def findings(self) -> Iterator[Finding]:
        """One finding for all tensors of a kind."""
        make = warning if self.accepted else error
        advice = "Make config.json and the weights those of one model."
        for id_, what, names in (
            ("PH-A28", "the class has no", self.unexpected),
            ("PH-A29", "there is no", self.missing),
            ("PH-A30", "the class has no", self.mismatched),
        ):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                how = "; the library's own conversion accepts it" if self.accepted else ""
                yield make(id_, WEIGHTS, f"{what} {', '.join(sorted(names)[:3])}{more}{how}", advice)


def _of_transformers(snapshot: Snapshot) -> _Differences:
    """Transformers renames tensors of older versions itself, so it is asked what is left over."""
    from transformers import AutoModelForImageClassification

    _, info = AutoModelForImageClassification.from_pretrained(
        snapshot.folder,
        device_map="meta",
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    shapes = [_other_shape(name, tuple(here), tuple(there)) for name, here, there in info["mismatched_keys"]]
    return _Differences(list(info["unexpected_keys"]), list(info["missing_keys"]), shapes)


def _of_timm(snapshot: Snapshot) -> _Differences:
    """Tensors that timm saved are those of its class; what an older version saved may pass its conversion."""
    if WEIGHTS not in snapshot.files:  # timm would take a pickle instead
        return _Differences([], [WEIGHTS], [])
    with torch.device("meta"):
        network = import_timm().create_model(f"local-dir:{snapshot.folder}", pretrained=False)
        here, there = _stored(snapshot), {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        differences = _shape_differences(here, there)
        if here != there:
            try:
                converted_by_timm(snapshot, network)
            except Exception:  # noqa: BLE001 - whatever it is: it does not accept them
                return differences
    return replace(differences, accepted=True)


def _stored(snapshot: Snapshot) -> dict[str, _Shape]:
    with safe_open(snapshot.folder / WEIGHTS, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict


def _shape_differences(here: Mapping[str, _Shape], there: Mapping[str, _Shape]) -> _Differences:
    both = here.keys() & there.keys()
    shapes = [_other_shape(name, here[name], there[name]) for name in both if here[name] != there[name]]
    return _Differences(list(here.keys() - there.keys()), list(there.keys() - here.keys()), shapes)


def _other_shape(name: str, here: _Shape, there: _Shape) -> str:
    return f"{name} of {here}, which is {there}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries from writing their own reports of what does not fit, and progress bars."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch: copying to a place without memory does nothing
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
