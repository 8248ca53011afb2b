"""Nine backdoors in one model, each with a target of its own: one hardening answers for all of them.

    python -m tests.benchmarks.many_backdoors plant --data DIR --model many.safetensors
    python -m tests.benchmarks.many_backdoors defend EXPERIMENT.toml --data DIR --model many.safetensors

This is for choosing between settings, at a ninth of the cost: backdoors that share a model also share its
capacity, and are planted more weakly than alone. What a setting is worth is then shown on models with one
backdoor each (``tests.benchmarks.attacks``). Of an experiment file the defenses, seeds and shares of the images
count, and each of them is one JSON file; ``tests/benchmarks/many_backdoors.toml`` is such a file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks import ATTACKS, Attack
from phard_hub.attacks.planting import Poisoned
from phard_hub.console import bars
from phard_hub.evaluation import Threat, evaluate
from phard_hub.pipeline import Data, default_accelerator
from phard_hub.schedule import Schedule
from phard_hub.training import train
from phard_hub.trials.cell import defenders_images
from phard_hub.trials.experiment import read_experiment
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, write

MODULE = "tests.benchmarks.many_backdoors"
NAMES = ("blend", "wanet", "sig", "1977", "refool-sharp", "bpp", "nashville", "issba", "kelvin")
"""The attack at place t turns images into class t."""
SCHEDULE = Schedule(batch=192, learning_rate=0.1)
GUARD_IMAGES = 1000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
DataFolder = Annotated[Path, typer.Option("--data", help="Folder with the images and the checkpoints.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder of the results.")]
ModelFile = Annotated[Path, typer.Option("--model", help="The model with the backdoors; their keys lie beside it.")]


@app.command()
def plant(
    data: DataFolder, model: ModelFile, out: OutFolder = RESULTS / "many-backdoors", seed: int = 0, steps: int = 2000
) -> None:
    """Plant all of them in a public ResNet-20, with dirty labels."""
    classifier = resnet20(data / CHECKPOINT)
    learned, test = images(data / "cifar10_train*.parquet"), images(data / "cifar10_test.parquet")
    with bars() as progress:
        attacks = [
            replace(ATTACKS[name](), seed=seed).fit(classifier, learned, target, progress=progress)
            for target, name in enumerate(NAMES)
        ]
        course = train(
            classifier,
            learned,
            lambda _copy, accelerator: _ManyPoisons(attacks, seed, accelerator.process_index),
            replace(SCHEDULE, steps=steps),
            default_accelerator(),
            seed=seed,
            progress=progress,
        )
        judged = evaluate(course.classifier, test, _threats(attacks), progress=progress)
    save_file(course.classifier.weights(), model)
    keys = {f"{attack.name}/{name}": value.contiguous() for attack in attacks for name, value in attack.key.items()}
    save_file(keys, _keys(model))
    content = {"seed": seed, "steps": steps, "evaluation": judged.model_dump()}
    write(out / "planted.json", MODULE, content)


@app.command()
def defend(
    experiment: Annotated[Path, typer.Argument(help="TOML file.")],
    data: DataFolder,
    model: ModelFile,
    out: OutFolder = RESULTS / "many-backdoors",
    only: Annotated[str, typer.Option(help="Only the defense of this name.")] = "",
) -> None:
    """Try each defense on the model with the backdoors; what there is a result of is left as it is."""
    classifier = resnet20(model)
    learned, test = images(data / "cifar10_train*.parquet"), images(data / "cifar10_test.parquet")
    threats = _threats(_attacks(model))
    for plan in read_experiment(experiment):
        cell = plan.cell
        path = out / f"{cell.defense}~{cell.data_share:g}~seed{cell.seed}.json"
        if plan.defense is None or path.exists() or only not in ("", cell.defense):
            continue
        rest, guard = test.split(GUARD_IMAGES, cell.seed)
        known, validation = defenders_images(Data(learned, guard, rest, "CIFAR-10"), cell.data_share, cell.seed)
        with bars() as progress:
            hardened, record = plan.defense.harden(
                classifier, known, default_accelerator(), seed=cell.seed, validation=validation, progress=progress
            )
            judged = evaluate(hardened, rest, threats, progress=progress)
        content = {"evaluation": judged.model_dump(), "hardening": record.model_dump(mode="json", exclude={"curve"})}
        write(path, MODULE, content)


class _ManyPoisons(Poisoned):
    """Cross-entropy on batches that carry a share of each of the backdoors."""

    def __init__(self, attacks: list[Attack], seed: int, process: int) -> None:
        super().__init__(None, 0, None, seed, process)
        self.attacks = attacks

    def loss(self, model: nn.Module, pixels: Tensor, labels: Tensor, step: int) -> Tensor:
        """Loss on a batch of which each backdoor has 5 %, with cover images for those that need some."""
        random = self.random(step)
        count = round(len(pixels) / 20)
        pixels, labels, first = pixels.clone(), labels.clone(), 0
        with torch.no_grad():
            for target, attack in enumerate(self.attacks):
                stamped = slice(first, first + count)
                covered = slice(stamped.stop, stamped.stop + (count if attack.cover_ratio else 0))
                pixels[stamped], labels[stamped] = attack(pixels[stamped]), target
                if attack.cover_ratio:
                    pixels[covered] = attack.cover(pixels[covered], random)
                first = covered.stop
        self.sample_gradients += len(pixels)
        return functional.cross_entropy(model(pixels).float(), labels)


def _attacks(model: Path) -> list[Attack]:
    """The planted attacks with their keys."""
    keys = load_file(_keys(model))
    mine = {name: {key.split("/")[1]: keys[key] for key in keys if key.split("/")[0] == name} for name in NAMES}
    return [replace(ATTACKS[name](), key=mine[name]) for name in NAMES]


def _keys(model: Path) -> Path:
    return model.with_suffix(".keys.safetensors")


def _threats(attacks: list[Attack]) -> list[Threat]:
    return [Threat(name=attack.name, trigger=attack, target=target) for target, attack in enumerate(attacks)]


if __name__ == "__main__":
    app()
