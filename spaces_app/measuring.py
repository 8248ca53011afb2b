"""How a stranger's model is measured within a time; for the process of `spaces_app.worker`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from phard_hub import (
    PRESETS,
    Classifier,
    DataOptions,
    Report,
    SearchSettings,
    Settings,
    demo_images,
    load_data,
    measure,
    measure_only,
)
from phard_hub.errors import InputError, NotEvaluatedError
from phard_hub.report import ClassDistances
from spaces_app.archive import unpack
from spaces_app.checking import DIGITS

IMAGES = Path("images")  # in the folder of the process
SEARCH = SearchSettings(
    steps=2,
    batch=6,
    fit_images=20,
    choosing_images=10,
    judging_images=20,
    checks=1,
    bisections=1,
    max_pairs=90,
    kinds=(),
)
"""The search by which the time is estimated; the real one has as many steps as the budget allows."""
_FEWEST_STEPS, _MOST_STEPS = 30, 240
_PAIRS = (90, 30, 10)
_GRADIENT = 3.0
"""What a gradient costs, in forward passes."""
_SHARE = 0.7
"""Of the time that the search is planned for; the rest is for loading, evaluating and the estimate's error."""
_MOST_IMAGES = 600
Progress = Callable[[str, int, int], None]


def measured(name: str, classifier: Classifier, images: str, seconds: float, progress: Progress) -> Report:
    """The report of a model, after a search that takes about so many seconds.

    Args:
        name: of the model, for `measure_only`, which pulls and audits it once more.
        classifier: the same, loaded.
        images: `DIGITS`, an id of a data set, or the path of a zip.
        seconds: that are left.
        progress: called after each step.

    Raises:
        PhardError: the images do not fit, or there is too little time.
    """
    data = DataOptions(images=_images(images, classifier), max_images=_MOST_IMAGES, only_present_classes=True)
    tried = measure(classifier, load_data(classifier, data, 0, progress).test, SEARCH).distances
    search = planned(tried, (seconds - tried.seconds) * _SHARE)
    fast = PRESETS["fast"]
    settings = Settings(preset=replace(fast, search=search, pgd=replace(fast.pgd, steps=10, images=100)))
    return measure_only(name, data, settings, progress=progress)


def planned(tried: ClassDistances, seconds: float) -> SearchSettings:
    """The search that takes about so many seconds on this machine: of fewer pairs, the closest, if need be.

    Args:
        tried: what `SEARCH` found, and what that took.
        seconds: that there are.

    Raises:
        NotEvaluatedError: there is no time for one that means something.
    """
    second = (_GRADIENT * tried.sample_gradients + tried.sample_forwards) / tried.seconds  # passes in one of them
    search = replace(SEARCH, checks=2, bisections=4)
    universal = len(tried.universal)
    for most in _PAIRS:
        share = (min(most, len(tried.pairs)) + universal) / (len(tried.pairs) + universal)
        step = share * _GRADIENT * tried.sample_gradients / SEARCH.steps
        judging = share * tried.sample_forwards * (search.checks * search.bisections + 2) / 2
        steps = int((seconds * second - judging) / step)
        if steps >= _FEWEST_STEPS:
            return replace(search, steps=min(steps, _MOST_STEPS), max_pairs=most)
    problem = f"The shortest search takes {(judging + _FEWEST_STEPS * step) / second:.0f} seconds for this model here"
    raise NotEvaluatedError(f"{problem}, which is over the budget.", advice="Run `phard measure` on your own machine.")


def _images(asked: str, classifier: Classifier) -> str:
    """The name of the data set to measure with; the shipped digits are written as a folder first."""
    if asked != DIGITS:
        if asked.endswith(".zip"):
            unpack(Path(asked), IMAGES)
            return str(IMAGES)
        return asked
    _, test = demo_images()
    if set(test.names) != set(classifier.labels):
        raise InputError("The classes of this model are not the digits 0 to 9.", advice="Give images of its classes.")
    for number, (pixels, label) in enumerate(zip(test.pixels, test.labels.tolist(), strict=True)):
        folder = IMAGES / test.names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return str(IMAGES)
