"""What a search costs beside the procedures of others, and with more classes.

    python -m tests.benchmarks.speed peers --data DIR
    python -m tests.benchmarks.speed classes

``peers`` measures the 90 pairs and 10 universal triggers of the CIFAR-10 ResNet-20, and inverts a few triggers as MOTH
and Neural Cleanse do: one at a time, in fp32, all of their images in a step. Ours and theirs take turns, and theirs are
multiplied to the number that we found. Beside the CPU seconds stands what all of them reach on images that nothing saw.
`phard_hub.defenses.inversion` is their search as published; its images go through the network in one pass, and the
weights take no gradient, which is faster than their own code.

``classes`` measures an untrained network on noise with 10, 43, 100 and 1,000 classes: the cost does not depend
on what is found.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from phard_hub.cli.progress import show_progress
from phard_hub.defenses.inversion import Inversion, Stamps
from phard_hub.defenses.removal.neuralcleanse import NeuralCleanse
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.planning import cost
from phard_hub.presets import DEFAULT, FAST, Preset
from phard_hub.report.base import plain
from phard_hub.triggers.pool import UNIVERSAL, Pool, all_pairs
from phard_hub.triggers.search import Measurement, SearchSettings, measure
from tests.benchmarks.cifar10_resnet20 import CHECKPOINT, images, resnet20
from tests.benchmarks.records import RESULTS, timed, write
from tests.benchmarks.resnet_cifar import CifarResNet
from tests.benchmarks.unseen import success

MODULE = "tests.benchmarks.speed"
MOTH = Inversion(inner_steps=1000, bound=0.9)
MOTH_IMAGES = 100
UNSEEN_IMAGES = 200

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path | None, typer.Option(help="JSON file to write.")]


@app.command()
def peers(
    data: Annotated[Path, typer.Option(help="Folder with the images and the checkpoint.")],
    rounds: Annotated[int, typer.Option(help="How often ours and theirs take turns.")] = 2,
    seed: int = 0,
    out: Out = None,
) -> None:
    """Ours, and one trigger of each peer, in turns."""
    torch.set_num_threads(1)
    classifier = resnet20(data / CHECKPOINT).eval()
    seen, unseen = images(data / "cifar10_test.parquet").split(0.2, seed)
    random = torch.Generator().manual_seed(seed)
    pairs = all_pairs(seen.classes)
    drawn = [pairs[k] for k in torch.randperm(len(pairs), generator=random)[:rounds]]
    both = replace(DEFAULT.search, kinds=())
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "universal": [], "moth": [], "neural-cleanse": []}
    for turn, (source, target) in enumerate(drawn):
        found["ours"].append(_ours(classifier, seen, unseen, both, seed + turn))
        found["moth"].append(_theirs(classifier, seen, unseen, MOTH, (source, target), MOTH_IMAGES, random))
        found["universal"].append(_ours(classifier, seen, unseen, replace(both, max_pairs=0), seed + turn))
        cleanse = NeuralCleanse()
        direction = (UNIVERSAL, target)
        one = _theirs(classifier, seen, unseen, cleanse.search, direction, cleanse.searched_on, random)
        found["neural-cleanse"].append(one)
    middle = {name: statistics.median(each["cpu_seconds"] for each in runs) for name, runs in found.items()}
    content = {
        "seed": seed,
        "search": plain(asdict(both)),
        "moth": asdict(MOTH),
        "runs": found,
        "moth_over_ours": len(pairs) * middle["moth"] / middle["ours"],
        "neural_cleanse_over_ours": seen.num_classes * middle["neural-cleanse"] / middle["universal"],
    }
    write(out or RESULTS / f"speed-peers-seed{seed}.json", MODULE, content)


def _measured(
    classifier: Classifier, images: LabelledImages, search: SearchSettings, seed: int = 0
) -> tuple[Measurement, dict[str, float]]:
    with show_progress() as progress:
        return timed(lambda: measure(classifier, images, search, Job(seed=seed, progress=progress)))


def _ours(
    classifier: Classifier, seen: LabelledImages, unseen: LabelledImages, search: SearchSettings, seed: int
) -> dict[str, Any]:
    found, took = _measured(classifier, seen, search, seed)
    distances = found.distances
    reached = [each for each in (*distances.pairs, *distances.universal) if each.reached]
    return {
        **took,
        "sample_gradients": distances.sample_gradients,
        "sample_forwards": distances.sample_forwards,
        "triggers": len(distances.pairs) + len(distances.universal),
        "reached": len(reached),
        "mean": distances.mean,
        "success": success(found, classifier, unseen),
    }


def _theirs(
    classifier: Classifier,
    seen: LabelledImages,
    unseen: LabelledImages,
    inversion: Inversion,
    direction: tuple[int, int],
    count: int,
    random: torch.Generator,
) -> dict[str, Any]:
    """One trigger, and what it does to the images that it was made from and to others."""
    source, target = direction
    pool, judges = Pool.of(seen), Pool.of(unseen)
    pixels = pool.read(pool.all_of(source, target, count), classifier.device)
    start = Stamps.drawn(1, seen.shape, random, classifier.device)
    which, targets = torch.zeros(len(pixels), dtype=torch.long), torch.tensor([target])
    stamps, took = timed(lambda: inversion.invert(classifier, pixels, which, targets, start, random))

    @torch.no_grad()
    def turned(shown: Tensor) -> float:
        stamped = stamps(shown, torch.zeros(len(shown), dtype=torch.long))
        return float((classifier(stamped).argmax(1) == target).float().mean())

    return {
        **took,
        "source": None if source == UNIVERSAL else source,
        "target": target,
        "sample_gradients": inversion.inner_steps * len(pixels),
        "mask": float(stamps.size),
        "success": {
            "reported": turned(pixels),
            "unseen": turned(judges.read(judges.all_of(source, target, UNSEEN_IMAGES), classifier.device)),
        },
    }


@app.command()
def classes(
    numbers: Annotated[list[int] | None, typer.Option(help="Numbers of classes.")] = None,
    steps: Annotated[int, typer.Option(help="Of the search.")] = 25,
    out: Out = None,
) -> None:
    """CPU seconds against the number of classes; each row is written when it is there."""
    torch.set_num_threads(1)
    search = replace(FAST.search, steps=steps)
    rows = []
    for count in numbers or [10, 43, 100, 1000]:
        torch.manual_seed(0)
        names = [str(k) for k in range(count)]
        classifier = Classifier(
            CifarResNet(20, count).eval(), labels=names, image_size=(32, 32), mean=[0.5] * 3, std=[0.25] * 3
        )
        each = 60
        pixels = torch.randint(256, (each * count, 3, 32, 32), dtype=torch.uint8)
        noise = LabelledImages(pixels, torch.arange(count).repeat_interleave(each), tuple(names), "noise")
        found, took = _measured(classifier, noise, search)
        distances = found.distances
        rows.append(
            {
                "classes": count,
                **took,
                "pairs": len(distances.pairs),
                "universal": len(distances.universal),
                "single": sum(map(len, distances.kinds.values())),
                "sample_gradients": distances.sample_gradients,
                "sample_forwards": distances.sample_forwards,
                "estimate": cost(Preset(search=search), count),
            }
        )
        write(out or RESULTS / "speed-classes.json", MODULE, {"search": plain(asdict(search)), "rows": rows})


if __name__ == "__main__":
    app()
