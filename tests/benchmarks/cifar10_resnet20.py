"""CIFAR-10 and a ResNet-20 made by other people: distances, hardening, and planted backdoors.

    python -m tests.benchmarks.cifar10_resnet20 harden --data DIR --seed 0
    python -m tests.benchmarks.cifar10_resnet20 harden --data DIR --attack blend
    python -m tests.benchmarks.cifar10_resnet20 convergence --data DIR --weights hardened.safetensors

``DIR`` holds ``cifar10_train-*.parquet``, ``cifar10_test.parquet`` and
``checkpoints/akamaster_cifar10_resnet20.safetensors``. Every run writes one JSON file with its command,
commit, settings, versions, seeds, device and times.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file, save_file

from phard_hub.attacks import ATTACKS
from phard_hub.attacks.planting import PLANTING, plant
from phard_hub.console import bars
from phard_hub.evaluation import PGD, Threat, evaluate
from phard_hub.hub.audit import Audit
from phard_hub.hub.pull import Snapshot, sha256
from phard_hub.images import LabelledImages, load_images
from phard_hub.models.classifier import Classifier
from phard_hub.pipeline import Data, Settings, assess, default_accelerator, describe
from phard_hub.presets import DEFAULT
from phard_hub.report.record import State
from phard_hub.sizes import trigger_size
from phard_hub.triggers.search import measure
from tests.benchmarks.resnet_cifar import CifarResNet

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RESULTS = Path(__file__).parent / "results"
CHECKPOINT = Path("checkpoints/akamaster_cifar10_resnet20.safetensors")
GUARD_IMAGES = 5000


def _code() -> dict[str, Any]:
    """The commit, and what of the package differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=True).stdout

    changed = [line[3:] for line in git("status", "--porcelain").splitlines()]
    return {"commit": git("rev-parse", "HEAD").strip(), "dirty": [f for f in changed if f.startswith("phard_hub")]}


CODE = _code()
"""Asked at the start: a commit made while a benchmark runs is not what it ran."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
DataFolder = Annotated[Path, typer.Option("--data", help="Folder with the images and the checkpoint.")]
Out = Annotated[Path | None, typer.Option(help="JSON file to write.")]


@app.command()
def harden(
    data: DataFolder,
    attack: Annotated[str | None, typer.Option(help="Plant this backdoor of ATTACKS first.")] = None,
    seed: int = 0,
    plant_steps: int = 1000,
    distances: Annotated[bool, typer.Option(help="Measure class distances too.")] = True,
    before_from: Annotated[
        Path | None, typer.Option(help="Result of another seed: take what it measured before hardening.")
    ] = None,
    out: Out = None,
    weights: Annotated[Path | None, typer.Option(help="Write the hardened weights here.")] = None,
) -> None:
    """Harden the checkpoint, or a copy with a backdoor planted in it, and judge it before and after."""
    accelerator = default_accelerator()
    classifier = resnet20(data / CHECKPOINT)
    train, test = images(data / "cifar10_train-*.parquet"), images(data / "cifar10_test.parquet")
    unseen, guard = test.split(GUARD_IMAGES, seed)
    threats = []
    reference = None
    with bars() as progress:
        if attack is not None:
            trigger = ATTACKS[attack](seed=seed).fit(classifier, train, 0, progress=progress)
            threats, reference = [Threat(name=attack, trigger=trigger, target=0)], classifier
            schedule = replace(PLANTING, steps=plant_steps)
            classifier = plant(
                classifier,
                train,
                trigger,
                target=0,
                accelerator=accelerator,
                schedule=schedule,
                seed=seed,
                progress=progress,
            )
        settings = Settings(preset=DEFAULT, seed=seed, threats=threats, reference=reference)

        def judge(model: Classifier) -> Any:
            if distances:
                return assess(model, test, settings, progress)[0]
            return evaluate(model, test, threats, pgd=PGD(seed=seed), reference=reference, progress=progress)

        if before_from is None:
            before = judge(classifier)
        else:
            before = State.model_validate(json.loads(before_from.read_text())["report"]["before"])
        hardened, hardening = DEFAULT.defense.harden(
            classifier, train, accelerator, seed=seed, validation=guard, progress=progress
        )
        after = judge(hardened)
    if weights is not None:
        save_file(hardened.weights(), weights)
    name = f"cifar10-resnet20-{attack or 'original'}-seed{seed}.json"
    content: dict[str, Any] = {
        "planted": None
        if attack is None
        else {"attack": trigger.parameters(), "target": 0, "schedule": asdict(schedule)},
        "accuracy_without_guard_images": [
            evaluate(model, unseen).accuracy.model_dump() for model in (classifier, hardened)
        ],
    }
    if distances:
        snapshot = Snapshot(
            folder=data,
            repo="akamaster/pytorch_resnet_cifar10 resnet20",
            commit=None,
            files={CHECKPOINT.name: sha256(data / CHECKPOINT)},
            license="BSD-2-Clause",
        )
        named = Data(train, guard, test, "CIFAR-10")
        report = describe(Audit(snapshot, ()), named, accelerator, before=before, after=after, hardening=hardening)
        content["report"] = report.model_dump(mode="json")
    else:
        content |= {
            "before": before.model_dump(),
            "after": after.model_dump(),
            "hardening": hardening.model_dump(mode="json"),
        }
    write(out or RESULTS / name, content)


@app.command("plant")
def plant_attacks(
    data: DataFolder,
    attacks: Annotated[list[str], typer.Argument(help="Names of ATTACKS.")],
    seed: int = 0,
    steps: int = PLANTING.steps,
    learning_rate: float = PLANTING.learning_rate,
    poison_rate: Annotated[float | None, typer.Option(help="Instead of each attack's own.")] = None,
) -> None:
    """Plant each of these backdoors in the checkpoint; say how well it works, what it costs and how large it is."""
    accelerator = default_accelerator()
    original = resnet20(data / CHECKPOINT)
    train, test = images(data / "cifar10_train-*.parquet"), images(data / "cifar10_test.parquet")
    schedule = replace(PLANTING, steps=steps, learning_rate=learning_rate)
    for name in attacks:
        started = time.process_time()
        with bars() as progress:
            attack = ATTACKS[name](seed=seed).fit(original, train, 0, progress=progress)
            fitted = time.process_time()
            planted = plant(
                original,
                train,
                attack,
                target=0,
                accelerator=accelerator,
                poison_rate=poison_rate,
                schedule=schedule,
                seed=seed,
                progress=progress,
            )
            done = time.process_time()
            threat = Threat(name=name, trigger=attack, target=0)
            judged = evaluate(planted, test, [threat], reference=original, progress=progress)
        content = {
            "attack": {"name": name, "parameters": attack.parameters(), "target": 0},
            "poison_rate": attack.poison_rate if poison_rate is None else poison_rate,
            "schedule": asdict(schedule),
            "cpu_seconds": {"fit": round(fitted - started, 1), "plant": round(done - fitted, 1)},
            "size": trigger_size(attack, test.sample(200)).model_dump(),
            "evaluation": judged.model_dump(),
        }
        write(RESULTS / f"cifar10-resnet20-planted-{name}-seed{seed}.json", content)


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
    settings = replace(DEFAULT.search, steps=factor * DEFAULT.search.steps, max_pairs=max_pairs, seed=seed)
    with bars() as progress:
        found = measure(classifier, images(data / "cifar10_test.parquet"), settings, progress=progress)
    kind = "hardened" if weights else "original"
    name = f"cifar10-resnet20-{kind}-distances-x{factor}-seed{seed}.json"
    write(out or RESULTS / name, {"factor": factor, "distances": found.distances.model_dump(mode="json")})


def resnet20(path: Path) -> Classifier:
    """The checkpoint behind the classifier contract; its normalisation is that of its authors."""
    network = CifarResNet(20)
    network.load_state_dict(load_file(path))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Classifier(network, labels=LABELS, image_size=(32, 32), mean=mean, std=std).eval()


def images(path: Path) -> LabelledImages:
    """CIFAR-10 from parquet files."""
    return load_images(str(path), labels=LABELS, image_size=(32, 32))


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a result beside what is needed to make it again."""
    arguments = ["DIR" if Path(word).is_dir() else Path(word).name for word in sys.argv[1:]]
    head = {
        "command": shlex.join(["python", "-m", "tests.benchmarks.cifar10_resnet20", *arguments]),
        **CODE,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": torch.get_num_threads(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | content, indent=1) + "\n")


if __name__ == "__main__":
    app()
