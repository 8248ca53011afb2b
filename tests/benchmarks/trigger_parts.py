"""What each part of the trigger is worth: which attacks it can express, and how small a change it finds.

    python -m tests.benchmarks.trigger_parts --data DIR --hardened hardened.safetensors

A trigger of each set of parts is fitted to each attack, on training images, and judged on test images by the share of
the attack's energy that it explains. Then the universal class distances of the public ResNet-20 for CIFAR-10, and of
a hardened copy, are searched with the same sets and steps: fewer parts find larger changes. A part that hardening did
not train against says whether it made the model harder to turn, or only harder to turn by what it trained against.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from phard_hub.attacks import ATTACKS, Attack
from phard_hub.cli.progress import show_progress
from phard_hub.images import LabelledImages
from phard_hub.job import Job, Progress
from phard_hub.models.classifier import Classifier
from phard_hub.presets import DEFAULT
from phard_hub.release.release import weights_sha256
from phard_hub.report.distances import ClassDistances, both_reached, mean_increase
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.bank import Bank, Parts
from phard_hub.triggers.search import measure
from tests.benchmarks.attacks.outcomes import PATCHES
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, write
from tests.triggers.fitting import energy, explained, fit

MODULE = "tests.benchmarks.trigger_parts"
NAME = "cifar10-resnet20-trigger-parts"
NONE = Parts(warp=False, latent=False, curve=False, colour=False, field=False)
SETS = {
    "default": Parts(),
    "with latent": Parts(latent=True),
    "latent alone": replace(NONE, latent=True),
    "no warp": Parts(warp=False),
    "no curve": Parts(curve=False),
    "no colour": Parts(colour=False),
    "no field": Parts(field=False),
}
SEARCH = replace(DEFAULT.search, max_pairs=1)
"""Only the universal triggers, and one pair that nothing is said of."""
STEPS, BATCH = 200, 16


def main(
    data: Annotated[Path, typer.Option(help="Folder with the images and the checkpoint.")],
    hardened: Annotated[Path, typer.Option(help="Weights of the hardened copy.")],
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Fit triggers to attacks, and search distances, with each set of parts; a stopped run continues."""
    path = out / f"{NAME}-seed{seed}.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results: dict[str, dict[str, Any]] = {key: content.get(key, {}) for key in ("explained", "distances")}
    models = {"original": resnet20(data / CHECKPOINT), "hardened": resnet20(hardened)}
    learned, test = images(data / "cifar10_train-*.parquet"), images(data / "cifar10_test.parquet")
    settings = {
        "seed": seed,
        "steps": STEPS,
        "batch": BATCH,
        "parts": {name: asdict(each) for name, each in SETS.items()},
    }
    shas = {stage: weights_sha256(model.weights()) for stage, model in models.items()}
    head = {"settings": settings, "weights_sha256": shas}
    with show_progress() as progress:
        if set(results["explained"]) < set(SETS):
            attacks = _attacks(models["original"], learned, seed, progress)
        for name, parts in SETS.items():
            if name not in results["explained"]:
                results["explained"][name] = _explained(parts, attacks, learned, test, seed, progress)
                write(path, MODULE, head | results)
        for name, parts in SETS.items():
            if name not in results["distances"]:
                search, job = replace(SEARCH, parts=parts), Job(seed=seed, progress=progress)
                results["distances"][name] = {
                    stage: measure(model, test, search, job).distances.model_dump(mode="json")
                    for stage, model in models.items()
                }
                write(path, MODULE, head | results)


def _attacks(classifier: Classifier, learned: LabelledImages, seed: int, progress: Progress) -> list[Attack]:
    """All pervasive attacks, ready to stamp."""
    return [
        replace(make(), seed=seed).fit(classifier, learned, 0, progress=progress)
        for name, make in ATTACKS.items()
        if name not in PATCHES
    ]


def _explained(
    parts: Parts, attacks: list[Attack], learned: LabelledImages, test: LabelledImages, seed: int, progress: Progress
) -> dict[str, float]:
    """Share of each attack's energy that one trigger explains on the first 1,000 test images."""
    autoencoder = train_autoencoder(learned, seed=seed, progress=progress) if parts.latent else None
    bank = Bank(len(attacks), learned.shape, parts, autoencoder=autoencoder).randomise(seed)
    unseen = test.pixels[:1000].float() / 255
    energies = [energy(attack, unseen) for attack in attacks]
    fit(bank, attacks, learned.pixels, energies, steps=STEPS, batch=BATCH, seed=seed, progress=progress)
    return {attack.name: explained(bank.trigger(row), attack, unseen) for row, attack in enumerate(attacks)}


def smallest_found(content: dict[str, Any]) -> list[tuple[str, ...]]:
    """One line a set of parts: the mean universal distance before hardening and after, and the time of a search."""
    rows = []
    for name, found in content["distances"].items():
        before, after = (ClassDistances.from_fields(found[stage]) for stage in ("original", "hardened"))
        both = both_reached(before.universal, after.universal)
        means = (f"{fmean(sizes) * before.rms_per_l2:.1f}" for sizes in zip(*both, strict=True))
        increase = f"{100 * (mean_increase(both) or 0.0):+.0f} %"
        rows.append((name, *means, increase, f"{len(both)} of {len(before.universal)}", f"{before.seconds:.0f}"))
    return rows


def expressed(content: dict[str, Any]) -> list[tuple[str, ...]]:
    """One line an attack: the share of its energy that each set of parts explains."""
    shares = list(content["explained"].values())
    return [(attack, *(f"{each[attack]:.2f}" for each in shares)) for attack in shares[0]]


if __name__ == "__main__":
    typer.run(main)
