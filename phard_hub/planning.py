"""What a job costs before it is done, and what of it fits into a budget.

The unit is the sample-gradient: one image sent through the classifier and back. What only goes forward counts as a
third. A timed step says how long one takes on this machine.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional

from phard_hub.budget import Budget, Estimate
from phard_hub.disk.atomic import private_folder, write_text
from phard_hub.disk.reading import read_regular
from phard_hub.errors import InputError, StateError
from phard_hub.hardware import fast_autocast
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.presets import Preset
from phard_hub.triggers.settings import SearchSettings

_FILE = "budget"
_log = logging.getLogger(__name__)
_FORWARD = 1 / 3
_JUDGING_PASSES = 8  # bisections of the strength, and confirmations
_STEPS_TIMED = 3
SHARES = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Of all steps, which a budget may leave; below that, a search says too little."""
_FEWEST_PAIRS = 20


def cost(preset: Preset, classes: int, *, hardens: bool) -> float:
    """Sample-gradients of a job with a classifier of so many classes: measuring, or measuring twice and hardening."""
    measuring = _cost_of_search(preset.search, classes) + preset.pgd.steps * preset.pgd.images
    return 2 * measuring + preset.defense.gradients if hardens else measuring


def _cost_of_search(search: SearchSettings, classes: int) -> float:
    universal = min(classes, search.max_universal) if classes > 2 else 0
    universal += min(classes, search.max_single) * len(search.kinds)
    triggers = min(classes * (classes - 1), search.max_pairs) + universal
    tried = search.checks * search.bisections * search.choosing_images + _JUDGING_PASSES * search.judging_images
    return triggers * (search.steps * search.batch + _FORWARD * tried)


def timed(classifier: Classifier, images: LabelledImages) -> float:
    """Seconds that one sample-gradient takes; the classifier is left as it was."""
    pixels, labels = images.batch(range(min(64, len(images))), classifier.device)
    pixels.requires_grad_(True)
    seconds = []
    with frozen(classifier):
        for _ in range(_STEPS_TIMED):
            started = time.perf_counter()
            with fast_autocast(classifier.device):
                loss = functional.cross_entropy(classifier(pixels).float(), labels)
            torch.autograd.grad(loss, pixels)[0].sum().item()  # waits for the device
            seconds.append(time.perf_counter() - started)
    return min(seconds) / len(pixels)


class Fitted(NamedTuple):
    """A preset that fits into a budget, and what was given up for it; nothing if all of it fits."""

    preset: Preset
    given_up: str


def fit(preset: Preset, allowed: float, classes: int, *, hardens: bool) -> Fitted:
    """The most of a preset that costs at most so many sample-gradients.

    Steps are given up first, down to a quarter; then what is searched by kind of trigger; then all pairs but the
    closest.

    Raises:
        InputError: not even that fits.
    """
    for share in SHARES:
        less = _shortened(preset, share)
        if cost(less, classes, hardens=hardens) <= allowed:
            return Fitted(less, "" if share == 1 else f"{100 * (1 - share):.0f} % of all steps")
    steps = f"{100 * (1 - SHARES[-1]):.0f} % of all steps"
    less = replace(less, search=replace(less.search, kinds=()))
    if cost(less, classes, hardens=hardens) <= allowed:
        return Fitted(less, f"{steps}, and triggers of a single kind")
    fewest = replace(less, search=replace(less.search, max_pairs=_FEWEST_PAIRS))
    if cost(fewest, classes, hardens=hardens) <= allowed:
        given_up = f"{steps}, triggers of a single kind, and all pairs but the closest {_FEWEST_PAIRS}"
        return Fitted(fewest, given_up)
    least = cost(fewest, classes, hardens=hardens)
    problem = f"The budget allows {allowed:,.0f} sample-gradients, and the least that says anything costs {least:,.0f}."
    raise InputError(problem, advice="Allow more, or take a cheaper --preset, such as gate.")


def _shortened(preset: Preset, share: float) -> Preset:
    if share == 1:
        return preset
    search = replace(preset.search, steps=max(1, round(share * preset.search.steps)))
    return replace(preset, search=search, defense=preset.defense.lasting(max(1, round(share * preset.defense.steps))))


def plan(
    preset: Preset, classifier: Classifier, images: LabelledImages, job: Job, budget: Budget, *, hardens: bool
) -> Fitted:
    """Say what a job costs, and choose what of it fits into the budget.

    A job with a folder keeps what its first try was allowed, so that its next one does the same.

    Raises:
        InputError: not even the least fits.
        StateError: what was kept is broken.
    """
    classes = len(images.classes)
    each = job.first(lambda: timed(classifier, images))
    gradients = budget.gradients if budget.seconds is None else budget.seconds / each
    if gradients is None:
        fitted = Fitted(preset, "")
    else:
        kept = job.first(lambda: _kept(job.folder, gradients))
        fitted = fit(preset, kept, classes, hardens=hardens)
    job.first(lambda: _say(Estimate(cost(fitted.preset, classes, hardens=hardens), each), fitted.given_up))
    return fitted


def _say(estimate: Estimate, given_up: str) -> None:
    _log.info("This costs %s.%s", estimate, f" The budget leaves out {given_up}." if given_up else "")


def _kept(folder: Path | None, gradients: float) -> float:
    """What this job was allowed at its first try."""
    if folder is None:
        return gradients
    private_folder(folder)
    try:
        return float(read_regular(folder, _FILE, 100))
    except FileNotFoundError:
        write_text(folder / _FILE, repr(gradients))
        return gradients
    except (OSError, ValueError) as error:
        advice = "Delete it, and what lies beside it, to begin again."
        raise StateError(f"The budget kept in {folder / _FILE} cannot be read.", advice=advice) from error
