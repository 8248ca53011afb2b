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

import torch
import typer

from phard_hub.attacks import ATTACKS, Attack
from phard_hub.console import bars
from phard_hub.hub.release import weights_sha256
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.presets import DEFAULT
from phard_hub.progress import Progress
from phard_hub.report.record import ClassDistances, both_reached, mean_increase
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.bank import Bank, Parts
from phard_hub.triggers.search import measure
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, write

MODULE = "tests.benchmarks.trigger_parts"
NAME = "cifar10-resnet20-trigger-parts"
PATCHES = ("badnets", "trojan-watermark")
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
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"explained": {}, "distances": {}}
    models = {"original": resnet20(data / CHECKPOINT), "hardened": resnet20(hardened)}
    learned, test = images(data / "cifar10_train-*.parquet"), images(data / "cifar10_test.parquet")
    with bars() as progress:
        if set(content["explained"]) < set(SETS):
            attacks = _attacks(models["original"], learned, seed, progress)
        for name, parts in SETS.items():
            if name not in content["explained"]:
                content["explained"][name] = _explained(parts, attacks, learned, test, seed, progress)
                _write(path, content, seed, models)
        for name, parts in SETS.items():
            if name not in content["distances"]:
                settings = replace(SEARCH, seed=seed, parts=parts)
                content["distances"][name] = {
                    stage: measure(model, test, settings, progress=progress).distances.model_dump(mode="json")
                    for stage, model in models.items()
                }
                _write(path, content, seed, models)


def _write(path: Path, content: dict[str, Any], seed: int, models: dict[str, Classifier]) -> None:
    settings = {
        "seed": seed,
        "steps": STEPS,
        "batch": BATCH,
        "parts": {name: asdict(each) for name, each in SETS.items()},
    }
    shas = {stage: weights_sha256(model.weights()) for stage, model in models.items()}
    results = {key: content[key] for key in ("explained", "distances")}
    write(path, MODULE, {"settings": settings, "weights_sha256": shas, **results})


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
    """Share of each attack's energy that one trigger explains, ``1 - MSE(trigger, attack) / MSE(image, attack)``.

    All are fitted in one batch, and judged on the first 1,000 test images.
    """
    autoencoder = train_autoencoder(learned.pixels, seed=seed, progress=progress) if parts.latent else None
    _, channels, height, width = learned.pixels.shape
    bank = Bank(len(attacks), (channels, height, width), parts, autoencoder=autoencoder).randomise(seed)
    optimizer = torch.optim.Adam(bank.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=STEPS)
    unseen = test.pixels[:1000].float() / 255
    energies = [float((unseen - attack(unseen)).square().mean()) for attack in attacks]
    index = torch.arange(len(attacks)).repeat_interleave(BATCH)
    random = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        pixels = learned.pixels[torch.randint(len(learned), (BATCH,), generator=random)].float() / 255
        stamped = bank(pixels.repeat(len(attacks), 1, 1, 1), index).split(BATCH)
        errors = [
            (image - attack(pixels)).square().mean() / energy
            for image, attack, energy in zip(stamped, attacks, energies, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(errors).sum().backward()
        optimizer.step()
        schedule.step()
        progress("fitting triggers", step + 1, STEPS)
    return {
        attack.name: 1 - float((bank.trigger(row)(unseen) - attack(unseen)).square().mean()) / energies[row]
        for row, attack in enumerate(attacks)
    }


def smallest_found(content: dict[str, Any]) -> list[tuple[str, ...]]:
    """One line a set of parts: the mean universal distance before hardening and after, and the time of a search."""
    rows = []
    for name, found in content["distances"].items():
        before, after = (ClassDistances.model_validate(found[stage]) for stage in ("original", "hardened"))
        both = both_reached(before.universal, after.universal)
        means = (f"{fmean(sizes) * before.rms_per_l2:.1f}" for sizes in zip(*both, strict=True))
        increase = f"{100 * (mean_increase(both) or 0.0):+.0f} %"
        rows.append((name, *means, increase, f"{len(both)} of {len(before.universal)}", f"{before.seconds:.0f}"))
    return rows


def explained(content: dict[str, Any]) -> list[tuple[str, ...]]:
    """One line an attack: the share of its energy that each set of parts explains."""
    shares = list(content["explained"].values())
    return [(attack, *(f"{each[attack]:.2f}" for each in shares)) for attack in shares[0]]


if __name__ == "__main__":
    typer.run(main)
