"""What the preset of the gate takes, and how far its universal distances are from those of a longer search.

    python -m tests.benchmarks.gating MODEL --images IMAGES --classes a,b,c
    python -m tests.benchmarks.gating resnet20 --data DIR

measures a model with the preset `gate`, and then searches its universal triggers for as long as the preset `default`
does. ``resnet20`` is the CIFAR-10 checkpoint of the other benchmarks.
"""

from __future__ import annotations

import resource
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from phard_hub import open_model
from phard_hub.cli.progress import show_progress
from phard_hub.images import LabelledImages
from phard_hub.images.data import DataOptions, load_data
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.presets import DEFAULT, PRESETS
from phard_hub.report.distances import ClassDistances
from phard_hub.triggers.search import SearchSettings, measure
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, timed, write

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def gating(
    model: Annotated[str, typer.Argument(help="A folder, a Hub id, or resnet20.")],
    data: Annotated[Path | None, typer.Option(help="Folder with CIFAR-10 and the ResNet-20.")] = None,
    image_set: Annotated[str, typer.Option("--images", help="Images of another model.")] = "",
    classes: Annotated[str | None, typer.Option(help="Of its classes, these.")] = None,
    labels: Annotated[str | None, typer.Option(help="What the data set's names mean: a=b,c=d.")] = None,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure twice: as the gate does, and for longer."""
    torch.set_num_threads(1)
    if model == "resnet20":
        assert data is not None
        classifier, shown = resnet20(data / CHECKPOINT).eval(), images(data / "cifar10_test.parquet")
    else:
        classifier = open_model(model)
        chosen = tuple(classes.split(",")) if classes else None
        names = dict(pair.split("=", 1) for pair in labels.split(",")) if labels else None
        options = DataOptions(images=image_set, classes=chosen, labels=names)
        shown = load_data(classifier, options, seed, only_test=True).test
    longer = replace(DEFAULT.search, max_pairs=0, kinds=())
    gate = _measured(classifier, shown, PRESETS["gate"].search, seed)
    full = _measured(classifier, shown, longer, seed)
    ratios = [
        one.distance / other.distance
        for one, other in zip(gate["distances"].universal, full["distances"].universal, strict=True)
        if one.distance and other.distance
    ]
    content = {
        "model": Path(model).name,
        "classes": len(shown.classes),
        "images": len(shown),
        "seconds_a_class": gate["cpu_seconds"] / len(shown.classes),
        "over_the_longer_search": {"median": statistics.median(ratios), "largest": max(ratios), "n": len(ratios)},
        "gate": _plain(gate),
        "longer": _plain(full),
    }
    write(out or RESULTS / f"gating-{Path(model).name}-seed{seed}.json", "tests.benchmarks.gating", content)


def _measured(classifier: Classifier, shown: LabelledImages, search: SearchSettings, seed: int) -> dict[str, Any]:
    with show_progress() as progress:
        found, took = timed(lambda: measure(classifier, shown, search, Job(seed=seed, progress=progress)).distances)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**took, "peak_gib": memory, "distances": found}


def _plain(measured: dict[str, Any]) -> dict[str, Any]:
    found: ClassDistances = measured["distances"]
    return measured | {"distances": found.model_dump(mode="json")}


if __name__ == "__main__":
    app()
