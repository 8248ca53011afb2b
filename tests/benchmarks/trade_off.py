"""Class distance against accuracy: what a model without a planted backdoor pays for how much of the hardening.

    python -m tests.benchmarks.trade_off --data DIR --weights FOLDER

The public ResNet-20 for CIFAR-10 forgets and is then hardened as by default, but with no limit on the accuracy. The
result is more than anybody wants; on the straight line between the weights, back to the model that has forgotten, lie
models that are hardened less. The accuracy guard goes back the same way. Nothing is chosen here, so all 10,000 test
images judge. ``FOLDER`` keeps the weights of both ends: a stopped run continues.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from phard_hub.cli.progress import show_progress
from phard_hub.defenses import AdversarialTraining, Defense
from phard_hub.evaluation.threats import evaluate
from phard_hub.hardware import default_accelerator
from phard_hub.job import Job, Progress
from phard_hub.models.classifier import Classifier
from phard_hub.presets import DEFAULT
from phard_hub.report.distances import ClassDistances, both_reached, mean_increase
from phard_hub.training.interpolation import between
from phard_hub.triggers.search import measure
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, write

MODULE = "tests.benchmarks.trade_off"
NAME = "cifar10-resnet20-trade-off"
SHARES = (0.0, 0.5, 0.75, DEFAULT.defense.bank.schedule.interpolation, 1.0)
"""How far the models are on the way; 0 has only forgotten."""
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
    with show_progress() as progress:
        original, forgotten, hardened = _ends(classifier, data, weights, seed, progress)
        for share in (None, *SHARES):
            if share in [point["share"] for point in points]:
                continue
            at = original if share is None else between(forgotten, hardened, share)
            classifier.network.load_state_dict(at)
            distances = measure(classifier, test, SEARCH, Job(seed=seed, progress=progress)).distances
            points.append(
                {
                    "share": share,
                    "accuracy": evaluate(classifier, test).accuracy.model_dump(),
                    "distances": distances.model_dump(mode="json"),
                }
            )
            write(path, MODULE, {"seed": seed, "points": points})
    draw(points).savefig(out / f"{NAME}.png", dpi=120, metadata={"Software": None})


def _ends(classifier: Classifier, data: Path, folder: Path, seed: int, progress: Progress) -> list[Weights]:
    """The weights of the original model, of that which has forgotten, and of that hardened without a limit."""
    folder.mkdir(parents=True, exist_ok=True)
    learned = images(data / "cifar10_train-*.parquet")
    ends, model = [classifier.weights()], classifier
    default = DEFAULT.defense
    phases: dict[str, Defense] = {"forgotten": default.forgetting, "hardened": to_its_end(default.bank)}
    for name, defense in phases.items():
        path = folder / f"{name}-seed{seed}.safetensors"
        if not path.exists():
            job = Job(accelerator=default_accelerator(), seed=seed, progress=progress)
            save_file(defense.harden(model, learned, job.part(name)).classifier.weights(), path)
        model = resnet20(path)
        ends.append(model.weights())
    return ends


def to_its_end(bank: AdversarialTraining) -> AdversarialTraining:
    """The bank, to the end of its way."""
    return replace(bank, schedule=replace(bank.schedule, interpolation=1.0))


def table(points: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One line a model: how far it was hardened, its accuracy, its mean class distance, and the pairs reached."""
    rows: list[tuple[str, ...]] = []
    for point in in_order(points):
        distances = ClassDistances.from_fields(point["distances"])
        lost, increase = place(points[0], point)
        rows.append(
            (
                "not at all" if point["share"] is None else f"forgotten, and {100 * point['share']:.0f} % of the way",
                f"{100 * point['accuracy']['value']:.2f} ({0 - lost:+.2f})",
                f"{distances.mean_rms:.1f} grey levels (L2 {distances.mean:.2f})",
                f"{increase:+.0f} %",
                f"{len(distances.reached)} of {len(distances.pairs)}",
            )
        )
    return rows


def in_order(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The original first, then from the least hardened to the most."""
    return sorted(points, key=lambda point: -1 if point["share"] is None else point["share"])


def draw(points: list[dict[str, Any]]) -> Figure:
    """Increase of the class distance over the accuracy lost, with the corner of +100 % at one point."""
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axis = figure.add_subplot()
    way = in_order(points)[1:]
    places = [place(points[0], point) for point in way]
    axis.plot(*zip(*places, strict=True), color="#0072b2", marker="o", markersize=5)
    for point, at in zip(way, places, strict=True):
        axis.annotate(f"{100 * point['share']:.0f} %", at, (6, -10), textcoords="offset points", color="#0072b2")
    axis.axvline(1.0, color="#9aa0a6", linewidth=1, linestyle="--")
    axis.axhline(100.0, color="#9aa0a6", linewidth=1, linestyle="--")
    axis.annotate("+100 % at one point", (1.0, 100.0), (6, -14), textcoords="offset points", color="#5f6368")
    axis.set_xlabel("points of accuracy lost")
    axis.set_ylabel("class distance, % larger")
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def place(original: dict[str, Any], point: dict[str, Any]) -> tuple[float, float]:
    """Points of accuracy that a model lost, and how much larger its class distances are, in percent."""
    before, after = (ClassDistances.from_fields(each["distances"]) for each in (original, point))
    lost = 100 * (original["accuracy"]["value"] - point["accuracy"]["value"])
    return lost, 100 * (mean_increase(both_reached(before.pairs, after.pairs)) or 0.0)


if __name__ == "__main__":
    typer.run(main)
