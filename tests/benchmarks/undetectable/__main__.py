"""Undetectable backdoors against defences, accuracy of students, and the speed of votes.

    python -m tests.benchmarks.undetectable table digits
    python -m tests.benchmarks.undetectable table cifar10 --data DIR
    python -m tests.benchmarks.undetectable head VIT --images IMAGENETTE
    python -m tests.benchmarks.undetectable students digits
    python -m tests.benchmarks.undetectable certify --data DIR
    python -m tests.benchmarks.undetectable votes

``table`` keeps each cell when it is there, and goes on where it was stopped.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from phard_hub.cli.progress import show_progress
from phard_hub.defenses import Distillation, Immunizer, NoiseTraining, Smoothing
from phard_hub.defenses.immunizer import measure_votes
from phard_hub.job import Job
from tests.benchmarks.records import RESULTS, write
from tests.benchmarks.undetectable.scenes import ROWS, Scene, accuracy, cifar10, deliver, digits, folder
from tests.benchmarks.undetectable.table import OF_A_HEAD, as_markdown, row

MODULE = "tests.benchmarks.undetectable"
PLACE = RESULTS / "undetectable"
Name = Annotated[str, typer.Argument(help="digits or cifar10.")]
DataFolder = Annotated[Path | None, typer.Option("--data", help="Folder with CIFAR-10 and the checkpoint.")]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def scene_of(name: str, data: Path | None, job: Job) -> Scene:
    """The models and images of a name."""
    if name == "digits":
        return digits(job)
    if data is None:
        raise typer.BadParameter("CIFAR-10 needs --data.")
    return cifar10(data)


@app.command()
def table(name: Name, data: DataFolder = None, seed: int = 0) -> None:
    """Which defence stops which construction, and what it costs."""
    path = PLACE / f"{name}.json"
    cells: dict[str, Any] = json.loads(path.read_text())["cells"] if path.exists() else {}
    with show_progress() as progress:
        job = Job(seed=seed, progress=progress)
        scene = scene_of(name, data, job)
        for construction in ROWS:
            if construction in cells:
                continue
            cells[construction] = dict(row(deliver(construction, scene, job), scene, job))
            write(path, MODULE, {"data": name, "seed": seed, "test_images": len(scene.test), "cells": cells})
            path.with_suffix(".md").write_text(as_markdown(cells))


@app.command()
def head(
    model: Annotated[Path, typer.Argument(help="What tests.benchmarks.vit wrote.")],
    images: Annotated[str, typer.Option(help="The images that it was given.")],
    steps: Annotated[int, typer.Option(help="Of fine-tuning.")] = 100,
    seed: int = 0,
) -> None:
    """The edited head of a real vision transformer, and what remains of it."""
    torch.set_num_threads(1)
    with show_progress() as progress:
        job = Job(seed=seed, progress=progress)
        scene = folder(model, images, steps)
        cells = {"sparse-head": dict(row(deliver("sparse-head", scene, job), scene, job, OF_A_HEAD))}
    content = {"data": Path(images).name, "seed": seed, "steps": steps, "test_images": len(scene.test), "cells": cells}
    write(PLACE / f"head-{scene.name}.json", MODULE, content)


@app.command()
def students(name: Name, data: DataFolder = None, seed: int = 0) -> None:
    """Accuracy of a distilled student against the number of images."""
    found = []
    with show_progress() as progress:
        job = Job(seed=seed, progress=progress)
        scene = scene_of(name, data, job)
        for count in (100, 300, 1000, 3000, 10_000, 50_000):
            few = scene.train.sample(max(1, count // scene.train.num_classes), seed)
            for soft in (0.9, 0.0):
                taught = Distillation(schedule=scene.schedule(1.5, 0.1), soft=soft)
                made = taught.into(scene.fresh(1), scene.honest, few, job).classifier
                found.append({"images": len(few), "soft": soft, "accuracy": accuracy(made, scene.test).model_dump()})
            if count >= len(scene.train):
                break
    teacher = accuracy(scene.honest, scene.test).model_dump()
    write(PLACE / f"students-{name}.json", MODULE, {"teacher": teacher, "seed": seed, "students": found})


@app.command()
def certify(data: DataFolder = None, sigma: float = 0.25, steps: int = 3000, seed: int = 0) -> None:
    """Certified accuracy on CIFAR-10, before and after training under the noise of the vote."""
    with show_progress() as progress:
        job = Job(seed=seed, progress=progress)
        scene = scene_of("cifar10", data, job)
        noise = NoiseTraining(sigma=sigma).lasting(steps)
        used = noise.harden(scene.honest, scene.train, job).classifier
        how = Smoothing(sigma=sigma, images=200)
        states = {
            name: {
                "accuracy": accuracy(model, scene.test).model_dump(),
                "smoothed": measure_votes(model, scene.test, how, job).model_dump(mode="json"),
            }
            for name, model in (("as it is", scene.honest), ("trained under noise", used))
        }
    write(PLACE / f"certified-cifar10-sigma{sigma:g}.json", MODULE, {"seed": seed, "steps": steps, **states})


@app.command()
def votes(images: int = 8) -> None:
    """Images a second at 100 and 1,000 votes, batched, for a ResNet-20 of 32 x 32 images."""
    from tests.benchmarks.attacks.models import CIFAR10, behind_contract
    from tests.benchmarks.resnet_cifar import CifarResNet

    device = Job().accelerator.device
    classifier = behind_contract(CifarResNet(20), CIFAR10).to(device)
    pixels = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    found = []
    for count in (1, 100, 1000):
        immunizer = Immunizer(classifier, Smoothing(votes=count), seed=0)
        immunizer.predict(pixels[:1])
        started = time.perf_counter()
        immunizer.predict(pixels)
        found.append({"votes": count, "images_a_second": images / (time.perf_counter() - started)})
    write(PLACE / "votes.json", MODULE, {"device": str(device), "images": images, "speed": found})


if __name__ == "__main__":
    app()
