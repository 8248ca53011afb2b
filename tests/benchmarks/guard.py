"""How often the promise of accuracy is broken, and by how much, when 250 images guard it.

    python -m tests.benchmarks.guard --data DIR

An honest CIFAR-10 ResNet-20 is hardened with 5 % of the training images, of which a tenth guards its accuracy, once for
each seed; then its accuracy on the 10,000 test images is set against that of before. Seeds that are in the file already
are not run again, and several processes may run others (``--seed``) for one file. ``--strict`` lets the guard go only
as far as its images show that accuracy is kept, and ``--cross-validate`` asks as many hardenings more about all images.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from phard_hub.cli.progress import show_progress
from phard_hub.defenses.base import hardening
from phard_hub.hardware import default_accelerator
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.predictions import predictions
from phard_hub.presets import PRESETS
from phard_hub.report.statistics import rate
from phard_hub.training.crossvalidation import cross_validate, divided
from phard_hub.training.guard import Guard
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, write

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def guard(
    data: Annotated[Path, typer.Option(help="Folder with the images and the checkpoint.")],
    seed: Annotated[list[int] | None, typer.Option(help="Of a hardening; ten by default. Repeat.")] = None,
    preset: str = "fast",
    share: Annotated[float, typer.Option(help="Of the training images.")] = 0.05,
    strict: bool = False,
    parts: Annotated[int, typer.Option("--cross-validate")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Harden with each seed, and count what was lost."""
    torch.set_num_threads(1)
    kind = f"{'-strict' if strict else ''}{f'-cross{parts}' if parts else ''}"
    out = out or RESULTS / f"guard-{preset}{kind}.json"
    classifier = resnet20(data / CHECKPOINT).eval()
    train, test = images(data / "cifar10_train-*.parquet"), images(data / "cifar10_test.parquet")
    before = _right(classifier, test)
    for each in seed or range(10):
        if each in {run["seed"] for run in _runs(out)}:
            continue
        made = _run(classifier, train.split(share, each)[1], test, before, preset, each, strict=strict, parts=parts)
        runs = sorted([*_runs(out), made], key=lambda run: int(run["seed"]))
        losses = [run["points_lost"] for run in runs]
        content = {
            "preset": preset,
            "share": share,
            "strict": strict,
            "runs": runs,
            "largest": max(losses),
            "mean": sum(losses) / len(losses),
            "broken": sum(loss > 1 for loss in losses),
        }
        write(out, "tests.benchmarks.guard", content)


def _runs(out: Path) -> list[dict[str, Any]]:
    """What is in the file, perhaps of another process."""
    return list(json.loads(out.read_text())["runs"]) if out.exists() else []


def _run(
    classifier: Classifier,
    mine: LabelledImages,
    test: LabelledImages,
    before: torch.Tensor,
    preset: str,
    seed: int,
    *,
    strict: bool,
    parts: int,
) -> dict[str, Any]:
    """One hardening, and the accuracy that it lost on all test images, in points of percent."""
    train, validation = mine.split(0.1, seed)
    defense, accelerator = PRESETS[preset].defense, default_accelerator()
    guarded = Guard.of(classifier, validation, accelerator.device)
    with show_progress() as progress:
        job = Job(accelerator=accelerator, seed=seed, progress=progress)
        guarded = replace(guarded, strict=True) if strict else guarded

        def harden(images: LabelledImages, job: Job) -> Classifier:
            return defense.harden(classifier, images, job, guarded).classifier

        seen = cross_validate(harden, classifier, train, divided(train, parts, seed), job)
        made = defense.harden(classifier, train, job, guarded)
    record = hardening(defense, made.phases, train, job, seen)
    after = _right(made.classifier, test)
    return {
        "seed": seed,
        "guard_images": len(validation),
        "accuracy": rate(int(after.sum()), len(after)).model_dump(mode="json"),
        "points_lost": 100 * float((before.float() - after.float()).mean()),
        "phases": [
            {
                key: value
                for key, value in phase.model_dump(mode="json").items()
                if key in {"defense", "kept", "share", "points_lost", "points_at_most", "seconds", "sample_gradients"}
            }
            for phase in record.phases
        ],
        "cross_validated": seen and seen.model_dump(mode="json"),
        "events": list(record.events),
    }


def _right(classifier: Classifier, test: LabelledImages) -> torch.Tensor:
    batches = (pixels for pixels, _ in test.batches(classifier.device))
    return predictions(classifier, batches, fast=True) == test.labels


if __name__ == "__main__":
    app()
