"""CIFAR-10 and a ResNet-20 made by other people: class distances before and after hardening.

    python -m tests.benchmarks.cifar10_resnet20 harden --data DIR --seed 0
    python -m tests.benchmarks.cifar10_resnet20 convergence --data DIR --weights hardened.safetensors

``DIR`` holds ``cifar10_train-*.parquet``, ``cifar10_test.parquet`` and
``checkpoints/akamaster_cifar10_resnet20.safetensors``. Every run writes one JSON file with its command,
commit, settings, versions, seeds, device and times.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from safetensors.torch import load_file, save_file

from phard_hub.cli.progress import show_progress
from phard_hub.defenses.base import hardening
from phard_hub.evaluation.threats import evaluate
from phard_hub.hardware import default_accelerator
from phard_hub.hub.pull import sha256
from phard_hub.hub.snapshot import Audit, Snapshot
from phard_hub.images import LabelledImages, load_images
from phard_hub.images.data import Data
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.pipeline import Settings, assess, describe
from phard_hub.presets import DEFAULT
from phard_hub.release.release import weights_sha256
from phard_hub.report.record import State
from phard_hub.training.guard import Guard
from phard_hub.triggers.search import measure
from tests.benchmarks.attacks.models import CIFAR10, behind_contract
from tests.benchmarks.records import RESULTS, write
from tests.benchmarks.resnet_cifar import CifarResNet

MODULE = "tests.benchmarks.cifar10_resnet20"
CHECKPOINT = Path("checkpoints/akamaster_cifar10_resnet20.safetensors")
GUARD_IMAGES = 5000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
DataFolder = Annotated[Path, typer.Option("--data", help="Folder with the images and the checkpoint.")]
Out = Annotated[Path | None, typer.Option(help="JSON file to write.")]


@app.command()
def harden(
    data: DataFolder,
    seed: int = 0,
    before_from: Annotated[
        Path | None, typer.Option(help="Result of another seed: take what it measured before hardening.")
    ] = None,
    out: Out = None,
    weights: Annotated[Path | None, typer.Option(help="Write the hardened weights here.")] = None,
) -> None:
    """Harden the checkpoint, and judge it before and after."""
    accelerator = default_accelerator()
    classifier = resnet20(data / CHECKPOINT)
    train, test = images(data / "cifar10_train-*.parquet"), images(data / "cifar10_test.parquet")
    unseen, guard = test.split(GUARD_IMAGES, seed)
    settings = Settings(preset=DEFAULT, seed=seed)
    with show_progress() as progress:
        job = Job(accelerator=accelerator, seed=seed, progress=progress)
        if before_from is None:
            before = assess(classifier, test, settings, job)[0]
        else:
            before = State.from_fields(json.loads(before_from.read_text())["report"]["before"])
        made = DEFAULT.defense.harden(
            classifier, train, job.part("hardening"), Guard.of(classifier, guard, accelerator.device)
        )
        hardened, record = made.classifier, hardening(DEFAULT.defense, made.phases, train, job)
        after = assess(hardened, test, settings, job, beside=before.distances)[0]
    if weights is not None:
        save_file(hardened.weights(), weights)
    snapshot = Snapshot(
        folder=data,
        repo="akamaster/pytorch_resnet_cifar10 resnet20",
        commit=None,
        files={CHECKPOINT.name: sha256(data / CHECKPOINT)},
        license="BSD-2-Clause",
    )
    named = Data(train, guard, test, "CIFAR-10")
    report = describe(Audit(snapshot, ()), named, accelerator, before=before, after=after, hardening=record)
    content: dict[str, Any] = {
        "accuracy_without_guard_images": [
            evaluate(model, unseen).accuracy.model_dump() for model in (classifier, hardened)
        ],
        "report": report.model_dump(mode="json"),
    }
    write(out or RESULTS / f"cifar10-resnet20-original-seed{seed}.json", MODULE, content)


@app.command()
def convergence(
    data: DataFolder,
    weights: Annotated[Path | None, typer.Option(help="Hardened weights; without it, the checkpoint itself.")] = None,
    seed: int = 0,
    factor: int = 2,
    max_pairs: Annotated[int, typer.Option(help="Only so many pairs, the closest by mean logit margin.")] = 90,
    out: Out = None,
) -> None:
    """Measure the class distances with a multiple of the default budget."""
    classifier = resnet20(weights or data / CHECKPOINT).to(default_accelerator().device)
    sha = weights_sha256(classifier.weights())
    settings = replace(DEFAULT.search, steps=factor * DEFAULT.search.steps, max_pairs=max_pairs)
    with show_progress() as progress:
        found = measure(classifier, images(data / "cifar10_test.parquet"), settings, Job(seed=seed, progress=progress))
    kind = "hardened" if weights else "original"
    name = f"cifar10-resnet20-{kind}-distances-x{factor}-seed{seed}.json"
    write(
        out or RESULTS / name,
        MODULE,
        {"weights_sha256": sha, "factor": factor, "distances": found.distances.model_dump(mode="json")},
    )


def resnet20(path: Path) -> Classifier:
    """The network with these weights."""
    classifier = behind_contract(CifarResNet(20), CIFAR10)
    classifier.network.load_state_dict(load_file(path))
    return classifier


def images(path: Path) -> LabelledImages:
    """CIFAR-10 from parquet files."""
    return load_images(str(path), labels=CIFAR10, image_size=(32, 32))


if __name__ == "__main__":
    app()
