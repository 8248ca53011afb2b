"""The process that looks at a stranger's model: `python -m spaces_app.worker`, started by `spaces_app.checking`.

It reads one request as JSON from stdin, and writes what it finds as lines of JSON: ``progress``, ``audit``, ``report``
and ``error``. It has an empty folder of its own, no token, and limits of time and memory; whatever a model does to it,
the page goes on. Nothing is loaded that its audit refuses.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from phard_hub import (
    PRESETS,
    Classifier,
    DataOptions,
    LabelledImages,
    SearchSettings,
    Settings,
    audit,
    demo_images,
    load,
    load_data,
    measure,
    measure_only,
    pull,
    pull_from_hub,
)
from phard_hub.errors import InputError, NotEvaluatedError, PhardError
from spaces_app.archive import unpack

DIGITS = "digits"
MODEL, IMAGES = Path("model"), Path("images")  # in the folder of this process
SEARCH = SearchSettings(steps=2, batch=6, fit_images=20, heldout_images=10, checks=1, bisections=1, max_pairs=90)
"""The search by which the time is estimated; the real one has as many steps as the budget allows."""
_FEWEST_STEPS, _MOST_STEPS = 30, 240
_GRADIENT = 3.0
"""What a gradient costs, in forward passes."""
_SHARE = 0.7
"""Of the budget that the search is planned for; the rest is for loading, evaluating and the estimate's error."""
_MEMORY = 2 * 2**30
_LARGEST_FILE = 2**30
_MOST_IMAGES = 600


def main() -> None:
    """Do what the request asks for."""
    out = _only_output()
    request: dict[str, Any] = json.load(sys.stdin)
    _limit(int(request["seconds"]))

    def tell(kind: str, content: object) -> None:
        out.write(json.dumps({kind: content}) + "\n")
        out.flush()

    try:
        _work(request, tell)
    except PhardError as error:
        tell("error", str(error))
    except MemoryError:
        tell("error", f"This takes more than {_MEMORY / 2**30:.0f} GiB of memory. Use phard on your own machine.")
    os._exit(0)  # nothing is left to tidy up, and libraries take seconds to end


def _work(request: dict[str, Any], tell: Any) -> None:  # noqa: ANN401 - a function
    started = time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        tell("progress", [what, done, total])

    progress("getting the model", 0, 1)
    if request["archive"]:
        unpack(Path(request["archive"]), MODEL)
        snapshot = pull(str(MODEL))
    else:
        snapshot = pull_from_hub(request["repo"], request["revision"])
    progress("looking at its files", 0, 1)
    audited = audit(snapshot)
    tell("audit", audited.record().model_dump(mode="json"))
    if request["images"] is None or audited.errors:
        return
    progress("loading it", 0, 1)
    classifier = load(audited)
    data = DataOptions(images=_images(request["images"], classifier), max_images=_MOST_IMAGES)
    images = load_data(classifier, data, 0, progress).test
    left = float(request["budget"]) - (time.monotonic() - started)
    search = planned(classifier, images, left * _SHARE)
    fast = PRESETS["fast"]
    settings = Settings(preset=replace(fast, search=search, pgd=replace(fast.pgd, steps=10, images=100)))
    name = str(MODEL) if request["archive"] else f"{request['repo']}@{snapshot.commit}"
    tell("report", measure_only(name, data, settings, progress=progress).model_dump(mode="json"))


def planned(classifier: Classifier, images: LabelledImages, seconds: float) -> SearchSettings:
    """The search that takes about so many seconds on this machine.

    Raises:
        NotEvaluatedError: there is no time for one that means something.
    """
    tried = measure(classifier, images, SEARCH).distances
    passes = _GRADIENT * tried.sample_gradients + tried.sample_forwards
    each = tried.seconds / passes
    search = replace(SEARCH, checks=2, bisections=4)
    judging = tried.sample_forwards * (search.checks * search.bisections + 2) / 2
    step = _GRADIENT * tried.sample_gradients / SEARCH.steps
    steps = int((seconds / each - judging) / step)
    if steps < _FEWEST_STEPS:
        problem = (
            f"A search for this model's class distances takes about {each * (judging + 100 * step) / 60:.0f} minutes"
        )
        raise NotEvaluatedError(f"{problem} here, which is over the budget.", advice="Run `phard measure` elsewhere.")
    return replace(search, steps=min(steps, _MOST_STEPS))


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
    from PIL import Image

    for number, (pixels, label) in enumerate(zip(test.pixels, test.labels.tolist(), strict=True)):
        folder = IMAGES / test.names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return str(IMAGES)


def _only_output() -> TextIO:
    """The stream for lines of JSON; whatever libraries print goes nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return out


def _limit(seconds: int) -> None:
    """Soft limits only, because the audit sets its own, smaller or larger ones, in a process of its own."""
    os.nice(10)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    memory = pages * resource.getpagesize() + _MEMORY
    for what, soft in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
        *([(resource.RLIMIT_AS, memory)] if pages else []),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
