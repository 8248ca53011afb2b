"""What one GPU takes to measure and harden, how much of it is used, and whether it finds what a CPU does.

    bash tests/benchmarks/gpu.sh DIR OUT

runs all of this in ten minutes. ``journey`` measures and hardens an untrained network on noise: its cost does not
depend on what is found. ``agreement`` measures the CIFAR-10 ResNet-20 in bf16 and in fp32, to be set against what
``python -m tests.benchmarks.unseen`` measures on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import timm
import torch
import typer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from phard_hub import hardware
from phard_hub.cli.progress import show_progress
from phard_hub.defenses.base import hardening
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.presets import PRESETS
from phard_hub.triggers.search import measure
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, write

MODULE = "tests.benchmarks.gpu"
CLASSES, PER_CLASS = 10, 300
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Multiplications and additions in a second, dense bf16, by the makers' data sheets."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path | None, typer.Option(help="JSON file to write.")]


def _small_resnet18() -> nn.Module:
    """As for CIFAR-10: nothing is made smaller before the first block."""
    network: nn.Module = timm.create_model("resnet18", num_classes=CLASSES)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18-32": (_small_resnet18, 32),
    "resnet18-224": (lambda: timm.create_model("resnet18", num_classes=CLASSES), 224),
    "vit-b16-224": (lambda: timm.create_model("vit_base_patch16_224", num_classes=CLASSES), 224),
}


@app.command()
def journey(
    network: Annotated[str, typer.Argument(help=", ".join(NETWORKS))],
    preset: str = "default",
    share: Annotated[float, typer.Option(help="Of all steps: a trial run takes less.")] = 1.0,
    out: Out = None,
) -> None:
    """Seconds to measure and to harden, what they reach of the card's peak, and memory."""
    build, size = NETWORKS[network]
    torch.manual_seed(0)
    job = Job()
    device = job.accelerator.device
    names = [str(k) for k in range(CLASSES)]
    classifier = Classifier(build().eval(), labels=names, image_size=(size, size), mean=[0.5] * 3, std=[0.5] * 3)
    classifier = classifier.to(device)
    pixels = torch.randint(256, (CLASSES * PER_CLASS, 3, size, size), dtype=torch.uint8)
    noise = LabelledImages(pixels, torch.arange(CLASSES).repeat_interleave(PER_CLASS), tuple(names), "noise")
    chosen = PRESETS[preset]
    search = replace(chosen.search, steps=max(1, round(share * chosen.search.steps)))
    defense = chosen.defense.lasting(max(1, round(share * chosen.defense.steps)))
    with show_progress() as progress:
        job = replace(job, progress=progress)
        measuring = _timed(device, lambda: measure(classifier, noise, search, job).distances)
        training = _timed(device, lambda: hardening(defense, defense.harden(classifier, noise, job).phases, noise, job))
    found, made = measuring.pop("came"), training.pop("came")
    once = _operations(classifier, size)
    # Back through a frozen network costs what the way forward does, and twice that where its weights learn.
    measured = once * (2 * found.sample_gradients + found.sample_forwards)
    trained = once * sum(3 * phase.sample_gradients + phase.sample_forwards for phase in made.phases)
    content = {
        "network": network,
        "preset": preset,
        "share": share,
        "device": _name(device),
        "bf16": hardware.has_fast_bf16(device),
        "operations_forward": once,
        "measuring": measuring | {"of_peak": _of_peak(measured, measuring["seconds"], device)},
        "hardening": training | {"of_peak": _of_peak(trained, training["seconds"], device)},
    }
    write(out or RESULTS / f"gpu-{network}.json", MODULE, content)


@app.command()
def agreement(
    data: Annotated[Path, typer.Option(help="Folder with the images and the checkpoint.")],
    seed: int = 0,
    out: Out = None,
) -> None:
    """Distances of the ResNet-20 in bf16 and in fp32, as a CPU measures them."""
    seen, _ = images(data / "cifar10_test.parquet").split(0.2, seed)
    runs = {}
    for precision in ("bf16", "fp32"):
        with ExitStack() as stack:
            if precision == "fp32":
                stack.enter_context(mock.patch.object(hardware, "has_fast_bf16", return_value=False))
            progress = stack.enter_context(show_progress())
            job = Job(seed=seed, progress=progress)
            classifier = resnet20(data / CHECKPOINT).eval().to(job.accelerator.device)
            runs[precision] = measure(classifier, seen, PRESETS["fast"].search, job).distances.model_dump(mode="json")
    write(out or RESULTS / "gpu-agreement.json", MODULE, {"device": _name(job.accelerator.device), "runs": runs})


def _timed(device: torch.device, act: Callable[[], Any]) -> dict[str, Any]:
    on_card = device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    came = act()
    if on_card:
        torch.cuda.synchronize()
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_card else None
    return {"came": came, "seconds": time.perf_counter() - started, "peak_gib": memory}


def _operations(classifier: Classifier, size: int) -> int:
    """Of one image on its way forward."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        classifier(torch.zeros(1, 3, size, size, device=classifier.device))
    return int(counter.get_total_flops())


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _of_peak(operations: float, seconds: float, device: torch.device) -> float | None:
    peak = next((peak for card, peak in PEAKS.items() if card in _name(device)), None)
    return None if peak is None else operations / seconds / peak


if __name__ == "__main__":
    app()
