"""Plant backdoors, defend, and judge; each cell is one JSON file, and a comparison that was stopped continues.

    python -m tests.benchmarks.attacks compare tests/benchmarks/attacks/cifar10.toml --data DIR
    python -m tests.benchmarks.attacks train gtsrb_roi32-resnet20 --data DIR --checkpoints MADE
    python -m tests.benchmarks.attacks compare tests/benchmarks/attacks/gtsrb_roi32.toml --data DIR --checkpoints MADE
    python -m tests.benchmarks.attacks others --data DIR
    python -m tests.benchmarks.attacks table

``DIR`` holds the images as parquet files and the folder ``checkpoints``; the cells go to ``results/``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

from phard_hub.cli.compare import write_views
from phard_hub.cli.progress import show_progress
from phard_hub.defenses.base import hardening
from phard_hub.evaluation.threats import PGD, Threat, evaluate
from phard_hub.hardware import default_accelerator
from phard_hub.images import load_images
from phard_hub.job import Job
from phard_hub.presets import DEFAULT
from phard_hub.training.guard import Guard
from phard_hub.trials.compare import compare as run
from phard_hub.trials.experiment import read_experiment
from tests.benchmarks.attacks.fashion import write as write_fashion
from tests.benchmarks.attacks.honest import trained
from tests.benchmarks.attacks.models import CIFAR10, FILES, opened, untrained
from tests.benchmarks.attacks.table import PAGE, renew_page
from tests.benchmarks.records import RESULTS, write

MODULE = "tests.benchmarks.attacks"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
DataFolder = Annotated[Path, typer.Option("--data", help="Folder with the images and the checkpoints.")]
SETS = ("cifar10", "gtsrb_roi32", "fashion_mnist")
IMAGES = {name: (f"{name}_train*.parquet", f"{name}_test.parquet") for name in SETS}
Checkpoints = Annotated[Path | None, typer.Option(help="Folder of the models, if it is not DIR/checkpoints.")]
GUARD_IMAGES = 1000


@app.command()
def compare(
    experiment: Annotated[Path, typer.Argument(help="TOML file; its name says which images.")],
    data: DataFolder,
    checkpoints: Checkpoints = None,
    out: Annotated[Path | None, typer.Option(help="Folder; by default one of that name under results/.")] = None,
    workers: int = 1,
) -> None:
    """Run an experiment on models that are no Hub models."""
    train, test = IMAGES[experiment.stem.partition("-")[0]]
    plans = read_experiment(experiment, images=str(data / train), test_images=str(data / test))
    folder = out or RESULTS / experiment.stem
    open_model = partial(opened, checkpoints=(checkpoints or data / "checkpoints").absolute(), data=data.absolute())
    with show_progress() as progress:
        trials = run(plans, folder, workers=workers, open_model=open_model, progress=progress)
    write_views(folder, trials)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Of images and a network.")],
    data: DataFolder,
    checkpoints: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    seed: int = 0,
) -> None:
    """Train a model from scratch, honestly, for images that nobody published one for."""
    torch.manual_seed(seed)
    fresh, places = untrained(name, data), IMAGES[name.partition("-")[0]]
    learned, test = (load_images(str(data / place), labels=fresh.labels, image_size=(32, 32)) for place in places)
    with show_progress() as progress:
        made, settings = trained(fresh, learned, seed, progress)
        judged = evaluate(made, test, progress=progress)
    checkpoints.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in made.network.state_dict().items()}, checkpoints / FILES[name])
    content = {"schedule": settings, "seed": seed, "evaluation": judged.model_dump()}
    write(RESULTS / f"{name}.json", MODULE, content)


@app.command()
def fashion(
    source: Annotated[Path, typer.Argument(help="Folder with the files of Fashion-MNIST, as Debian has them.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the images to.")],
) -> None:
    """Write Fashion-MNIST as the other benchmarks read images."""
    for path in write_fashion(source, out):
        typer.echo(path)


@app.command()
def table() -> None:
    """Renew the tables of RESULTS.md."""
    PAGE.write_text(renew_page(PAGE.read_text("utf-8")), "utf-8")


@app.command()
def others(data: DataFolder, seed: int = 0) -> None:
    """Harden models that other people planted their own triggers in, with these triggers before and after."""
    accelerator = default_accelerator()
    folder = data / "checkpoints"
    train, test = (load_images(str(data / place), labels=CIFAR10, image_size=(32, 32)) for place in IMAGES["cifar10"])
    test, guard = test.split(GUARD_IMAGES, seed)
    for name, threat in ibau_threats(folder).items():
        classifier = opened(name, folder, data).classifier
        with show_progress() as progress:
            before = evaluate(classifier, test, [threat], pgd=PGD(), seed=seed, progress=progress)
            job = Job(accelerator=accelerator, seed=seed, progress=progress)
            made = DEFAULT.defense.harden(
                classifier, train, job.part("hardening"), Guard.of(classifier, guard, accelerator.device)
            )
            after = evaluate(made.classifier, test, [threat], pgd=PGD(), seed=seed, progress=progress)
        content = {
            "model": FILES[name],
            "target": threat.target,
            "before": before.model_dump(),
            "after": after.model_dump(),
            "hardening": hardening(DEFAULT.defense, made.phases, train, job).model_dump(mode="json"),
        }
        write(RESULTS / f"{name}-seed{seed}.json", MODULE, content)


def ibau_threats(folder: Path) -> dict[str, Threat]:
    """What the authors of I-BAU stamp on their images, and the classes that it is to produce."""
    noise = torch.from_numpy(np.load(folder / "ibau_triggers.npz")["l2_inv"]).permute(2, 0, 1).float() / 255

    def patch(pixels: Tensor) -> Tensor:
        stamped = pixels.clone()
        stamped[:, :, 27:31, 27:31] = 1
        return stamped

    def added(pixels: Tensor) -> Tensor:
        return (pixels + noise.to(pixels)).clamp(0, 1)

    return {
        "ibau-badnets": Threat(name="badnets", trigger=patch, target=8),
        "ibau-l2-inv": Threat(name="l2-inv", trigger=added, target=0),
    }


if __name__ == "__main__":
    app()
