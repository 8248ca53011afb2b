"""What a job costs before it is done, and what of it fits into a budget.

The unit is the sample-gradient: one image sent through the classifier and back. What only goes forward counts as a
third. How many seconds that takes is timed on this machine, for each sort of trigger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from phard_hub.budget import Budget, Estimate
from phard_hub.disk.atomic import private_folder, write_text
from phard_hub.disk.reading import read_regular
from phard_hub.errors import InputError, StateError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.presets import Preset
from phard_hub.report.distances import GREY_LEVELS
from phard_hub.triggers.autoencoder import BATCH, STEPS
from phard_hub.triggers.pace import Pace, timed
from phard_hub.triggers.settings import SearchSettings

_FILE = "budget"
_log = logging.getLogger(__name__)
_FORWARD = 1 / 3
_JUDGING_PASSES = 8  # bisections of the strength, and confirmations
_SIZING_PASSES = 3  # until the changes of all images have the size that is asked for
SHARES = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Of all steps, which a budget may leave; below that, a search says too little."""
_FEWEST_PAIRS = 20
_COUNTED = Pace()


def cost(preset: Preset, classes: int, *, trainings: int = 0, pace: Pace = _COUNTED) -> float:
    """What measuring costs, or measuring twice and hardening so many times, with a classifier of so many classes.

    In sample-gradients; or in seconds, where a pace says how long they take.
    """
    measuring = _cost_of_search(preset.search, classes, pace) + pace.bank * preset.pgd.steps * preset.pgd.images
    return 2 * measuring + trainings * pace.bank * preset.defense.gradients if trainings else measuring


def _cost_of_search(search: SearchSettings, classes: int, pace: Pace) -> float:
    pairs, single = min(classes * (classes - 1), search.max_pairs), min(classes, search.max_single)
    universal = min(classes, search.max_universal) if classes > 2 else 0
    tried = search.checks * search.bisections * search.choosing_images + _JUDGING_PASSES * search.judging_images
    each = search.steps * search.batch + _FORWARD * tried
    sized = len(GREY_LEVELS) * (search.choosing_images + search.judging_images)
    to_one_class = each + _FORWARD * _SIZING_PASSES * sized
    return (
        pace.bank * (pairs * each + universal * to_one_class)
        + sum(pace.of(kind) for kind in search.kinds) * single * to_one_class
        + search.needs_autoencoder * pace.autoencoder * STEPS * BATCH
    )


class Fitted(NamedTuple):
    """A preset that fits into a budget, and what was given up for it; nothing if all of it fits."""

    preset: Preset
    given_up: str


def fit(preset: Preset, allowed: float, classes: int, *, trainings: int = 0, pace: Pace = _COUNTED) -> Fitted:
    """The most of a preset that costs at most so many sample-gradients; or seconds, at this pace.

    Steps are given up first, down to a quarter; then what is searched by kind of trigger; then all pairs but the
    closest.

    Raises:
        InputError: not even that fits.
    """
    for fitted in _less_and_less(preset):
        least = cost(fitted.preset, classes, trainings=trainings, pace=pace)
        if least <= allowed:
            return fitted
    problem = f"The budget allows {_said(allowed, pace)}, and the least that says anything costs {_said(least, pace)}."
    raise InputError(problem, advice="Allow more, or take a cheaper --preset, such as gate.")


def _said(value: float, pace: Pace) -> str:
    return f"{value:,.0f} sample-gradients" if pace == _COUNTED else str(timedelta(seconds=round(value)))


def _less_and_less(preset: Preset) -> Iterator[Fitted]:
    """What a budget may leave of a preset."""
    for share in SHARES:
        yield Fitted(_shortened(preset, share), "" if share == 1 else f"{100 * (1 - share):.0f} % of all steps")
    steps = f"{100 * (1 - SHARES[-1]):.0f} % of all steps"
    less = _shortened(preset, SHARES[-1])
    less = replace(less, search=replace(less.search, kinds=()))
    yield Fitted(less, f"{steps}, and triggers of a single kind")
    fewest = replace(less, search=replace(less.search, max_pairs=_FEWEST_PAIRS))
    yield Fitted(fewest, f"{steps}, triggers of a single kind, and all pairs but the closest {_FEWEST_PAIRS}")


def _shortened(preset: Preset, share: float) -> Preset:
    if share == 1:
        return preset
    search = replace(preset.search, steps=max(1, round(share * preset.search.steps)))
    return replace(preset, search=search, defense=preset.defense.lasting(max(1, round(share * preset.defense.steps))))


def plan(
    preset: Preset, classifier: Classifier, images: LabelledImages, job: Job, budget: Budget, *, trainings: int = 0
) -> Fitted:
    """Say what a job costs, and choose what of it fits into the budget.

    A job with a folder keeps what its first try gave up, so that its next one does the same.

    Raises:
        InputError: not even the least fits.
        StateError: what was kept is broken.
    """
    classes = len(images.classes)
    mine = timed(classifier, images, preset.search, job)
    pace = job.first(lambda: mine)  # what fits into a budget has to be the same for all
    limit, unit = (budget.gradients, _COUNTED) if budget.seconds is None else (budget.seconds, pace)
    fitted = Fitted(preset, "")
    if limit is not None:
        choose = partial(fit, preset, limit, classes, trainings=trainings, pace=unit)
        fitted = job.first(lambda: _kept(job.folder, preset, choose))
    if job.accelerator.is_main_process:
        both = (cost(fitted.preset, classes, trainings=trainings, pace=each) for each in (_COUNTED, pace))
        left_out = f" The budget leaves out {fitted.given_up}." if fitted.given_up else ""
        _log.info("This costs %s.%s", Estimate(*both), left_out)
    return fitted


def _kept(folder: Path | None, preset: Preset, choose: Callable[[], Fitted]) -> Fitted:
    """What this job chose at its first try, of which it keeps what it gave up."""
    if folder is None:
        return choose()
    private_folder(folder)
    try:
        given_up = read_regular(folder, _FILE, 1000).decode()
    except FileNotFoundError:
        chosen = choose()
        write_text(folder / _FILE, chosen.given_up)
        return chosen
    except (OSError, ValueError):
        given_up = "?"
    for fitted in _less_and_less(preset):
        if fitted.given_up == given_up:
            return fitted
    advice = "Delete it, and what lies beside it, to begin again."
    raise StateError(f"The budget kept in {folder / _FILE} cannot be read.", advice=advice)
