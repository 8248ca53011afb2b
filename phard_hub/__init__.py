"""Measure and harden vision models against pervasive backdoors, before you deploy them.

A pervasive backdoor is a small change of a whole image (a tint, a warp, a blend) that turns its class. The
job is a line, and `run` is that line written as code:

    repo id -> Snapshot -> Audit -> Classifier -> distances -> hardened Classifier -> Report -> Verdict -> release

* `pull` brings the files here, pinned to a commit and hashed; `audit` looks at them without running
  anything; `load` takes only what was audited and gives a `Classifier`: pixels in, logits out.
* `load_images` and `demo_images` give `LabelledImages`.
* `measure` finds how small a change turns each class into each other one; `evaluate` gives accuracy with
  and without attack.
* `PervasiveHardening` makes those changes larger, on a copy; a `Job` has what that takes, and a `Guard` watches
  the accuracy.
* All numbers are in one `Report`; `gate` says what a `Policy` thinks of it.
* `push` sends a release folder to the Hub, as one commit or one pull request.
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m phard_hub` would import everything else from the working directory first, which may be a stranger's.
    _given = zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    if any(flag[:1] == "-" and flag[-1] == "m" and name.partition(".")[0] == __name__ for flag, name in _given):
        sys.path.pop(0)

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phard_hub.attacks import ATTACKS
    from phard_hub.auditing import audit
    from phard_hub.defenses import DEFENSES
    from phard_hub.defenses.pervasive import PervasiveHardening
    from phard_hub.demos.quickstart import quickstart
    from phard_hub.evaluation.threats import PGD, Threat, evaluate
    from phard_hub.hub.pull import pull, pull_from_hub
    from phard_hub.images import LabelledImages, demo_images, load_images
    from phard_hub.images.data import Data, DataOptions, load_data
    from phard_hub.job import Job
    from phard_hub.models.classifier import Classifier
    from phard_hub.models.loading import load
    from phard_hub.pipeline import Settings, measure_only, open_model, plant, run
    from phard_hub.presets import PRESETS
    from phard_hub.release.published import published
    from phard_hub.release.push import push
    from phard_hub.report.gate import gate
    from phard_hub.report.policy import Policy
    from phard_hub.report.record import Report
    from phard_hub.report.views.plots import (
        amplification,
        distance_maps,
        success_curves,
        training_curves,
        trigger_gallery,
    )
    from phard_hub.training.guard import Guard
    from phard_hub.training.schedule import Schedule
    from phard_hub.triggers.search import Measurement, measure
    from phard_hub.triggers.settings import SearchSettings

__all__ = [
    "ATTACKS",
    "DEFENSES",
    "PGD",
    "PRESETS",
    "Classifier",
    "Data",
    "DataOptions",
    "Guard",
    "Job",
    "LabelledImages",
    "Measurement",
    "PervasiveHardening",
    "Policy",
    "Report",
    "Schedule",
    "SearchSettings",
    "Settings",
    "Threat",
    "amplification",
    "audit",
    "demo_images",
    "distance_maps",
    "evaluate",
    "gate",
    "load",
    "load_data",
    "load_images",
    "measure",
    "measure_only",
    "open_model",
    "plant",
    "published",
    "pull",
    "pull_from_hub",
    "push",
    "quickstart",
    "run",
    "success_curves",
    "training_curves",
    "trigger_gallery",
]

# Where each name lives. They are imported when first used, because most of them bring torch along.
_HOMES = {
    "ATTACKS": "attacks",
    "Classifier": "models.classifier",
    "DEFENSES": "defenses",
    "Data": "images.data",
    "DataOptions": "images.data",
    "Guard": "training.guard",
    "Job": "job",
    "LabelledImages": "images",
    "Measurement": "triggers.search",
    "PGD": "evaluation.threats",
    "PRESETS": "presets",
    "PervasiveHardening": "defenses.pervasive",
    "Policy": "report.policy",
    "Report": "report.record",
    "Schedule": "training.schedule",
    "SearchSettings": "triggers.settings",
    "Settings": "pipeline",
    "Threat": "evaluation.threats",
    "amplification": "report.views.plots",
    "audit": "auditing",
    "demo_images": "images",
    "distance_maps": "report.views.plots",
    "evaluate": "evaluation.threats",
    "gate": "report.gate",
    "load": "models.loading",
    "load_data": "images.data",
    "load_images": "images",
    "measure": "triggers.search",
    "measure_only": "pipeline",
    "open_model": "pipeline",
    "plant": "pipeline",
    "published": "release.published",
    "pull": "hub.pull",
    "pull_from_hub": "hub.pull",
    "push": "release.push",
    "quickstart": "demos.quickstart",
    "run": "pipeline",
    "success_curves": "report.views.plots",
    "training_curves": "report.views.plots",
    "trigger_gallery": "report.views.plots",
}

if not TYPE_CHECKING:  # type checkers read the imports above, and would believe any name because of this function

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names, whether they were used yet or not."""
    return sorted({*globals(), *__all__})
