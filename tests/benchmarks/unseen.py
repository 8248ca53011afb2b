"""Do triggers turn as many images that nothing ever saw as the report says?

    python -m tests.benchmarks.unseen --data DIR --preset fast --seed 0

Measures the CIFAR-10 ResNet-20 on four fifths of the test images, and then stamps 200 others of each class with the
triggers that were accepted. ``--no-fold`` leaves batch norm as it is, which changes nothing but the rounding; another
``--seed`` changes what the search draws and which images judge. Two such runs show how much of a distance is chance.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from safetensors.torch import save_file

from phard_hub.cli.progress import show_progress
from phard_hub.hardware import default_accelerator
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.presets import PRESETS
from phard_hub.release.release import weights_sha256
from phard_hub.training.guard import Guard
from phard_hub.triggers import search as search_module
from phard_hub.triggers.pool import UNIVERSAL, Pool
from phard_hub.triggers.search import Measurement, measure
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, write

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def unseen(
    data: Annotated[Path, typer.Option(help="Folder with the images and the checkpoint.")],
    preset: str = "fast",
    seed: int = 0,
    kinds: Annotated[bool, typer.Option(help="Search triggers of single kinds, too.")] = True,
    weights: Annotated[Path | None, typer.Option(help="Other weights of the same network.")] = None,
    harden_to: Annotated[Path | None, typer.Option(help="Harden it first, and write the weights here.")] = None,
    fold: Annotated[bool, typer.Option(help="Fold batch norm into the convolutions, as always.")] = True,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure, and stamp images that nothing ever saw."""
    torch.set_num_threads(1)
    if harden_to is not None:
        weights = _hardened(data, preset, harden_to)
    classifier = resnet20(weights or data / CHECKPOINT).eval()
    seen, others = images(data / "cifar10_test.parquet").split(0.2, seed)
    with show_progress() as progress, ExitStack() as stack:
        if not fold:
            stack.enter_context(mock.patch.object(search_module, "folded", lambda plain, _pixels: plain.clone()))
        search = PRESETS[preset].search
        search = search if kinds else replace(search, kinds=())
        found = measure(classifier, seen, search, Job(seed=seed, progress=progress))
    content = {
        "preset": preset,
        "weights_sha256": weights_sha256(classifier.weights()),
        "folded": fold,
        "success": success(found, classifier, others),
        "distances": found.distances.model_dump(mode="json"),
    }
    kind = "other" if weights else "original"
    write(
        out or RESULTS / f"cifar10-resnet20-{kind}-unseen-{preset}-seed{seed}.json", "tests.benchmarks.unseen", content
    )


def _hardened(data: Path, preset: str, out: Path) -> Path:
    """Weights after the defense of a preset with all training images, guarded by a tenth of the test images."""
    classifier, accelerator = resnet20(data / CHECKPOINT), default_accelerator()
    _, validation = images(data / "cifar10_test.parquet").split(0.1)
    guard = Guard.of(classifier, validation, accelerator.device)
    with show_progress() as progress:
        job = Job(accelerator=accelerator, progress=progress)
        made = PRESETS[preset].defense.harden(classifier, images(data / "cifar10_train-*.parquet"), job, guard)
    save_file(made.classifier.weights(), out)
    return out


@torch.no_grad()
def success(found: Measurement, classifier: Classifier, others: LabelledImages) -> dict[str, Any]:
    """Mean success as reported and on other images, over the pairs and the universal triggers that were reached."""
    pool = Pool.of(others)
    rates: dict[str, list[tuple[float, float]]] = {"pairs": [], "universal": []}
    for row, pair in enumerate((*found.distances.pairs, *found.distances.universal)):
        if pair.reached:
            source = UNIVERSAL if pair.source is None else pair.source
            pixels = pool.read(pool.all_of(source, pair.target, 200), torch.device("cpu"))
            hits = classifier(found.bank.trigger(row)(pixels)).argmax(1) == pair.target
            kind = "universal" if pair.source is None else "pairs"
            rates[kind].append((pair.success.value, float(hits.float().mean())))
    return {
        kind: {
            "triggers": len(both),
            "reported": sum(reported for reported, _ in both) / len(both),
            "unseen": sum(seen for _, seen in both) / len(both),
        }
        for kind, both in rates.items()
        if both
    }


if __name__ == "__main__":
    app()
