"""The tab Look: an image with a trigger on it, and what each model answers. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phard_hub import Classifier, amplification
from phard_hub.errors import InputError
from phard_hub.images import decode
from phard_hub.report import PairDistance, grey_levels, pair_name
from phard_hub.triggers import Bank
from spaces_app.examples import TARGET, Example, planted

PARTS = {
    "warp": ("flow",),
    "style": ("shift", "scale", "gain", "bias"),
    "tone curve": ("knots",),
    "colour mix": ("matrix",),
    "added field": ("values",),
}
"""The parts of a learned trigger by the names that visitors see, and the parameters of a bank that make them."""
KINDS = ("planted warp", "found on the backdoored model", "found on the hardened model", "found with all parts")
"""The planted one, those of each pair of classes, and those of all classes, which have encoder and decoder."""
_SEARCHES = dict(zip(KINDS[1:], ("backdoored", "hardened", "styled"), strict=True))
STRONGEST = 2.0
_SHOWN = 320
"""Pixels of a side at which small images are shown."""
_NO_CHANGE = 1e-6


@dataclass(frozen=True)
class Answer:
    """What one model says of one image: the share that each class gets."""

    model: str
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True)
class View:
    """An image before and after stamping, the change, and the answers.

    ``size`` is that of the change in grey levels (0-255, RMS); the picture of the change shows it ``factor`` times as
    large, around a middle grey that means none.
    """

    original: Image.Image
    stamped: Image.Image
    change: Image.Image
    factor: float
    size: float
    answers: tuple[Answer, ...]


def look(pixels: Tensor, stamped: Tensor, models: Mapping[str, Classifier]) -> View:
    """Compare an image with the same image stamped.

    Args:
        pixels: ``(1, C, H, W)`` in [0, 1].
        stamped: the same with a trigger.
        models: which are asked, by name.
    """
    change = (stamped - pixels)[0].permute(1, 2, 0).numpy()
    factor = amplification(change)
    size = grey_levels(float(np.sqrt(np.sum(change.astype(np.float64) ** 2))), pixels.shape[1:])
    answers = tuple(Answer(name, _shares(model, pixels), _shares(model, stamped)) for name, model in models.items())
    return View(_picture(pixels), _picture(stamped), _picture(0.5 + factor * (stamped - pixels)), factor, size, answers)


class Choice(NamedTuple):
    """What a visitor chose.

    Attributes:
        kind: one of `KINDS`.
        source: the class that a found trigger is for; None for the one of all classes.
        target: the class that it produces. The planted warp has its own.
        strength: 0 changes nothing, 1 is the trigger as it was planted or found.
        parts: of `PARTS`, those that are on; the planted warp has no others.
    """

    kind: str
    source: int | None
    target: int
    strength: float = 1.0
    parts: Collection[str] = tuple(PARTS)


def stamp(example: Example, pixels: Tensor, choice: Choice) -> Tensor:
    """Put a trigger on images ``(N, C, H, W)`` in [0, 1].

    Raises:
        InputError: there is no such trigger or part, or the strength is no number.
    """
    if not math.isfinite(choice.strength):
        raise InputError(f"The strength is {choice.strength}.", advice=f"Give 0 to {STRONGEST:g}.")
    if unknown := sorted(set(choice.parts) - PARTS.keys()):
        raise InputError(f"A trigger has no part {unknown[0]!r}.", advice=f"There are: {', '.join(PARTS)}.")
    strength = min(max(choice.strength, 0.0), STRONGEST)
    if choice.kind == KINDS[0]:
        return planted(strength)(pixels) if strength > _NO_CHANGE else pixels
    entries = _entries(example, choice.kind)
    bank = example.found[_SEARCHES[choice.kind]].bank
    return _stamped(bank, entries.index(_entry(example, choice)), pixels, strength, choice.parts)


def _entries(example: Example, kind: str) -> tuple[PairDistance, ...]:
    """The pairs, then the universal triggers, of the search that a kind of trigger comes from."""
    if kind not in _SEARCHES:
        raise InputError(f"There is no trigger {kind!r}.", advice=f"There are: {', '.join(KINDS)}.")
    distances = example.found[_SEARCHES[kind]].distances
    return distances.pairs + distances.universal


def _entry(example: Example, choice: Choice) -> PairDistance:
    source = None if choice.kind == KINDS[3] else choice.source
    for entry in _entries(example, choice.kind):
        if (entry.source, entry.target) == (source, choice.target):
            return entry
    raise InputError("Source and target are the same class.", advice="Choose two.")


@torch.no_grad()
def _stamped(bank: Bank, row: int, pixels: Tensor, strength: float, parts: Collection[str]) -> Tensor:
    on = {name for part in parts for name in PARTS[part]}
    each = torch.tensor([[strength if name in on else 0.0 for name in bank.parameter_names]])
    stamped: Tensor = bank(pixels, torch.full((len(pixels),), row), each.expand(len(pixels), -1))
    return stamped


@torch.no_grad()
def _shares(model: Classifier, pixels: Tensor) -> dict[str, float]:
    shares = model(pixels).float().softmax(1)[0]
    return dict(zip(model.labels, shares.tolist(), strict=True))


def _picture(pixels: Tensor) -> Image.Image:
    """Pixels ``(1, C, H, W)`` as a picture that is large enough to look at."""
    values = (pixels[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(values)
    factor = max(1, _SHOWN // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def uploaded(data: bytes, size: tuple[int, int]) -> Tensor:
    """The middle of an image that a visitor brings, as pixels ``(1, 3, H, W)``; it is read within limits.

    Raises:
        ImagesError: it is too large, broken, or of a format that is not read.
    """
    image = decode(data, "your file", "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)[None].float() / 255


def caption(example: Example, choice: Choice, size: float) -> str:
    """One line on the trigger that is shown, and how large its change of this image is."""
    if choice.kind == KINDS[0]:
        said = f"The warp that was planted, which makes the backdoored model say {example.labels[TARGET]}"
        return f"{said}: {size:.1f} grey levels."
    entry = _entry(example, choice)
    name = pair_name(example.found["backdoored"].distances, entry)
    if entry.rms is None:
        of_all = "the search did not reach this pair"
    else:
        turned = f"{100 * entry.success.value:.0f} % of {entry.success.n} held-out images"
        of_all = f"{entry.rms:.1f} on average, and turns {turned}"
    return f"{name}, {choice.kind}: {size:.1f} grey levels on this image ({of_all})."
