"""A checkpoint's tensors against the library's own class: none too many, none too few, none of another shape.

The class is built without memory for its weights, so this costs little, whatever sizes the config names. What `load`
would refuse is found here, too: an image processor that is missing or not understood, a network that takes no images
of its own size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from phard_hub.errors import CheckpointError, first_line
from phard_hub.hub.snapshot import Snapshot
from phard_hub.models.loading import assemble, require_logits
from phard_hub.models.timm_format import WEIGHTS, converted_by_timm, import_timm, is_timm, names_timm
from phard_hub.report.findings import error, warning
from phard_hub.report.record import Finding

_Shape = tuple[int, ...]
_FLOATS = ("F64", "F32", "F16", "BF16")
_LARGEST_BUFFERS = 2**30
_NO_MEMORY = ("can't allocate memory", "not enough memory")


def check(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A15, PH-A19, PH-A28 to PH-A30, PH-A33: how the weights differ from the class, and what cannot be loaded."""
    try:
        yield from _compared(snapshot)
    except CheckpointError as refusal:
        yield error("PH-A19", "config.json", refusal.problem, refusal.advice)
    except MemoryError:
        raise  # a limit
    except Exception as refusal:  # the libraries' classes raise all kinds of errors at hostile values
        if any(words in str(refusal) for words in _NO_MEMORY):
            raise MemoryError from refusal
        advice = "Give a checkpoint of an image classifier that the installed library knows, with its own config.json."
        yield error("PH-A19", "config.json", first_line(refusal), advice)


def _compared(snapshot: Snapshot) -> Iterator[Finding]:
    if names_timm(snapshot):
        import_timm()
    with _quiet():
        network, differences = _of_timm(snapshot) if is_timm(snapshot) else _of_transformers(snapshot)
    found = [*differences.findings(), *_of_network(snapshot, network)]
    yield from found
    if all(finding.severity != "error" for finding in found):
        with _quiet():
            _require_loadable(snapshot, network)


def _of_network(snapshot: Snapshot, network: nn.Module) -> Iterator[Finding]:
    """PH-A15, PH-A33: whole numbers where the class computes with fractions, and memory that no file asks for."""
    floats = {name for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    whole = sorted(name for name in floats & _whole_numbers(snapshot))
    if whole:
        more = f" and {len(whole) - 1} more" if len(whole) > 1 else ""
        evidence = f"{whole[0]}{more} in whole numbers, which the class does not compute with"
        yield error("PH-A15", WEIGHTS, evidence, "Give the model as it was before, in 16 or 32 bits.")
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    if buffers > _LARGEST_BUFFERS:
        evidence = f"the class asks for {buffers / 1e9:.1f} GB beside the weights"
        yield error(
            "PH-A33", "config.json", evidence, "Compare its config.json with that of the model it was made from."
        )


def _whole_numbers(snapshot: Snapshot) -> set[str]:
    """The names of the tensors in the files that hold no fractions."""
    found = set()
    for name in snapshot.files:
        if name.endswith(".safetensors"):
            with safe_open(snapshot.folder / name, framework="pt") as file:
                found |= {key for key in file.keys() if file.get_slice(key).get_dtype() not in _FLOATS}  # noqa: SIM118
    return found


def _require_loadable(snapshot: Snapshot, network: nn.Module) -> None:
    """What `load` does after the weights, without them.

    Raises:
        CheckpointError: it would refuse.
    """
    classifier = assemble(snapshot, network).to("meta")
    try:
        require_logits(snapshot, classifier)
    except CheckpointError as refusal:
        if not isinstance(refusal.__cause__, NotImplementedError) and "meta" not in str(refusal.__cause__):
            raise  # or it needs the weights to answer, and `load` will ask it


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


def _of_transformers(snapshot: Snapshot) -> tuple[nn.Module, _Differences]:
    """Transformers renames tensors of older versions itself, so it is asked what is left over."""
    from transformers import AutoModelForImageClassification

    network, info = AutoModelForImageClassification.from_pretrained(
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
    return network, _Differences(list(info["unexpected_keys"]), list(info["missing_keys"]), shapes)


def _of_timm(snapshot: Snapshot) -> tuple[nn.Module, _Differences]:
    """Tensors that timm saved are those of its class; what an older version saved may pass its conversion."""
    if WEIGHTS not in snapshot.files:  # timm would take any other file
        raise CheckpointError(f"{snapshot.repo} has no {WEIGHTS}.", advice="Save it with timm.models.save_for_hf.")
    with torch.device("meta"):
        network: nn.Module = import_timm().create_model(f"local-dir:{snapshot.folder}", pretrained=False)
        here, there = _stored(snapshot), {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        differences = _shape_differences(here, there)
        if here == there:
            return network, differences
        try:
            return converted_by_timm(snapshot, network), replace(differences, accepted=True)
        except Exception:  # noqa: BLE001 - whatever it is: it does not accept them
            return network, differences


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
