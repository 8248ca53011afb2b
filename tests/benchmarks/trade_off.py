"""Class distance against accuracy: what a model without a planted backdoor pays for how much of the hardening.

    python -m tests.benchmarks.trade_off --data DIR --weights FOLDER

The public ResNet-20 for CIFAR-10 forgets and is then hardened as by default, but with no limit on the accuracy. The
result is more than anybody wants; on the straight lines between the weights, back to the model that has forgotten and
back to the original one, lie models that are hardened less. The accuracy guard goes back the same way. Nothing is
chosen here, so all 10,000 test images judge. ``FOLDER`` keeps the weights of both ends: a stopped run continues.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from phard_hub.console import bars
from phard_hub.defenses.base import Defense
from phard_hub.defenses.pervasive import PervasiveHardening
from phard_hub.evaluation import evaluate
from phard_hub.models.classifier import Classifier
from phard_hub.pipeline import default_accelerator
from phard_hub.presets import DEFAULT
from phard_hub.progress import Progress
from phard_hub.report.record import ClassDistances, Rate, both_reached, mean_increase
from phard_hub.triggers.search import measure
from phard_hub.weights import between
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, write

MODULE = "tests.benchmarks.trade_off"
NAME = "cifar10-resnet20-trade-off"
STRENGTHS = {"original": (0.0, 0.4, 0.55, 0.7, 0.85), "forgotten": (0.0, 0.25, 0.5, 0.75, 1.0)}
"""How far each model is on the way from this start to the end."""
SEARCH = replace(DEFAULT.search, steps=120)

Weights = dict[str, Tensor]


def main(
    data: Annotated[Path, typer.Option(help="Folder with the images and the checkpoint.")],
    weights: Annotated[Path, typer.Option(help="Folder for the weights of both ends.")],
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Harden without a limit, and judge models on the way."""
    classifier, test = resnet20(data / CHECKPOINT), images(data / "cifar10_test.parquet")
    path = out / f"{NAME}-seed{seed}.json"
    points = json.loads(path.read_text())["points"] if path.exists() else []
    with bars() as progress:
        ends = _ends(classifier, data, weights, seed, progress)
        for start, share in _strengths():
            if any((point["start"], point["share"]) == (start, share) for point in points):
                continue
            classifier.network.load_state_dict(between(ends[start], ends["hardened"], share))
            distances = measure(classifier, test, replace(SEARCH, seed=seed), progress=progress).distances
            points.append(
                {
                    "start": start,
                    "share": share,
                    "accuracy": evaluate(classifier, test).accuracy.model_dump(),
                    "distances": distances.model_dump(mode="json"),
                }
            )
            write(path, MODULE, {"seed": seed, "points": points})
    draw(points).savefig(out / f"{NAME}.png", dpi=120, metadata={"Software": None})


def _strengths() -> Iterator[tuple[str, float]]:
    for start, shares in STRENGTHS.items():
        yield from ((start, share) for share in shares)


def _ends(classifier: Classifier, data: Path, folder: Path, seed: int, progress: Progress) -> dict[str, Weights]:
    """The weights of the original model, of that which has forgotten, and of that hardened without a limit."""
    folder.mkdir(parents=True, exist_ok=True)
    learned = images(data / "cifar10_train-*.parquet")
    ends, model = {"original": classifier.weights()}, classifier
    default = DEFAULT.defense
    steps: dict[str, Defense] = {"forgotten": default.forgetting, "hardened": bank_alone(default)}
    for name, defense in steps.items():
        path = folder / f"{name}-seed{seed}.safetensors"
        if not path.exists():
            made, _ = defense.harden(model, learned, default_accelerator(), seed=seed, progress=progress)
            save_file(made.weights(), path)
        model = resnet20(path)
        ends[name] = model.weights()
    return ends


def bank_alone(defense: PervasiveHardening) -> PervasiveHardening:
    """The defense without what comes before it."""
    return replace(defense, forgetting=defense.forgetting.lasting(0), gently=defense.gently.lasting(0))


def draw(points: list[dict[str, Any]]) -> Figure:
    """Increase of the class distance over the accuracy lost, with the corner of +100 % at one point."""
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axis = figure.add_subplot()
    original = next(point for point in points if (point["start"], point["share"]) == ("original", 0.0))
    for (start, _), colour, marker in zip(STRENGTHS.items(), ("#d55e00", "#0072b2"), "so", strict=True):
        placed = [place(original, point) for point in points if point["start"] == start]
        if start == "original":
            placed.append(place(original, points[-1]))  # both ways end at the hardened model
        lost, increase = zip(*placed, strict=True)
        axis.plot(lost, increase, color=colour, marker=marker, markersize=5, label=f"back to the {start} model")
    axis.axvline(1.0, color="#9aa0a6", linewidth=1, linestyle="--")
    axis.axhline(100.0, color="#9aa0a6", linewidth=1, linestyle="--")
    axis.annotate("+100 % at one point", (1.0, 100.0), (6, -14), textcoords="offset points", color="#5f6368")
    axis.set_xlabel("points of accuracy lost")
    axis.set_ylabel("class distance, % larger")
    axis.legend(frameon=False, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def place(original: dict[str, Any], point: dict[str, Any]) -> tuple[float, float]:
    """Points of accuracy that a model lost, and how much larger its class distances are, in percent."""
    before, after = (ClassDistances.model_validate(each["distances"]) for each in (original, point))
    accuracy = [Rate.model_validate(each["accuracy"]).value for each in (original, point)]
    return 100 * (accuracy[0] - accuracy[1]), 100 * (mean_increase(both_reached(before.pairs, after.pairs)) or 0.0)


if __name__ == "__main__":
    typer.run(main)
