"""A model's tensors against those of the model it was made from: which differ, and whether training did it.

An edit of the head alone is as hard to see as a needle without the head as it was before, and stands out beside it:
training moves a head in several directions of uneven size, an edit by one direction, or by noise that is the same in
all. Whoever trains afterwards hides both, so that nothing was found does not say that nothing was done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from phard_hub.hub.snapshot import Snapshot
from phard_hub.models.timm_format import WEIGHTS
from phard_hub.report.findings import note, warning
from phard_hub.report.record import Finding

SPIKE_SHARE, SPIKE_RATIO = 0.5, 3.0
"""Of a difference with a spike: energy of its first direction, and that direction beside the second."""
EVEN = 1.35
"""Noise beside its first direction: no honest difference seen was below 1.7, and none of Gaussian noise above 1.3."""


def compare_weights(snapshot: Snapshot, theirs: Snapshot | None) -> Iterator[Finding]:
    """PH-A40 to PH-A42: how the tensors differ from those of an upstream model whose weights are at hand."""
    if theirs is None or not any(map(_is_of_model, theirs.files)):
        return
    here, there = _places(snapshot), _places(theirs)
    shared = sorted(here.keys() & there.keys())
    changed = [name for name in shared if not _equal(_tensor(here, name), _tensor(there, name))]
    others = len(here.keys() ^ there.keys())
    yield note("PH-A40", WEIGHTS, _words(changed, len(shared), others, theirs), "Nothing, if this is what you expect.")
    classes = len(snapshot.config.get("id2label") or snapshot.config.get("label_names") or ())
    for name in changed:
        one, other = _tensor(here, name), _tensor(there, name)
        if one.dim() == 2 and one.shape == other.shape and len(one) == classes > 2:
            yield from Spectrum.of(one, other).findings(name)


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a difference between two matrices.

    Attributes:
        share: energy of the first direction, in [0, 1].
        ratio: the first singular value beside the second.
        unevenness: the second beside the last. Of Gaussian noise it is near 1 if the matrix is far wider than high
            (Marchenko and Pastur); of narrow ones it is large in any case, and nothing is seen.
    """

    share: float
    ratio: float
    unevenness: float

    @classmethod
    def of(cls, one: Tensor, other: Tensor) -> Spectrum:
        """Of matrices ``(K, D)``."""
        values = torch.linalg.svdvals(one.double() - other.double())
        return cls(
            share=float(values[0] ** 2 / values.square().sum()),
            ratio=float(values[0] / values[1].clamp_min(1e-12)),
            unevenness=float(values[1] / values[-1].clamp_min(1e-12)),
        )

    @property
    def has_spike(self) -> bool:
        """Whether one direction is most of the difference."""
        return self.share > SPIKE_SHARE and self.ratio > SPIKE_RATIO

    @property
    def is_even(self) -> bool:
        """Whether what is left beside the first direction is as even as noise."""
        return self.unevenness < EVEN

    def findings(self, name: str) -> Iterator[Finding]:
        """What is not as training leaves it."""
        advice = "Ask its owner how the head was made; --reset-head learns another one."
        if self.has_spike:
            evidence = f"{name}: {100 * self.share:.0f} % in one direction, {self.ratio:.1f} times the second"
            yield warning("PH-A41", WEIGHTS, evidence, advice)
        if self.is_even:
            evidence = f"{name}: beside the first direction, the largest is {self.unevenness:.2f} times the smallest"
            yield warning("PH-A42", WEIGHTS, evidence, advice)


def _words(changed: list[str], shared: int, others: int, theirs: Snapshot) -> str:
    name = f"{theirs.repo}@{theirs.commit[:12]}" if theirs.commit else Path(theirs.repo).name
    only = f"; only in one of the two: {others}" if others else ""
    if not changed:
        return f"all {shared} tensors are those of {name}{only}"
    listed = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return f"{shared - len(changed)} of {shared} tensors are those of {name}; different: {listed}{only}"


def _places(snapshot: Snapshot) -> dict[str, str]:
    """The path of the file that holds each tensor of the model; whatever else lies there is not loaded."""
    found: dict[str, str] = {}
    for file in (str(snapshot.folder / name) for name in snapshot.files if _is_of_model(name)):
        with safe_open(file, framework="pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    return found


def _is_of_model(name: str) -> bool:
    """Whether a file is one of those that the libraries load, in one piece or in several."""
    return name.startswith("model") and name.endswith(".safetensors")


def _tensor(places: dict[str, str], name: str) -> Tensor:
    with safe_open(places[name], framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(name)
        return tensor


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.float(), other.float())
