"""How long the steps of a search take on this machine.

Beside a small classifier, stamping takes most of the time, and networks that draw triggers far more than a bank does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch.nn import functional

from phard_hub.hardware import fast_autocast, images_at_once
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.folded import folded
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.bank import Bank, Triggers
from phard_hub.triggers.generator import Autoencoder
from phard_hub.triggers.settings import SearchSettings
from phard_hub.triggers.unets import UNets

_STEPS, _ROWS, _MOST_IMAGES = 3, 8, 64


class Pace(NamedTuple):
    """Seconds for each image of a step, by what stamps it, and of a step that trains the autoencoder.

    By default the cost of a step is the number of its sample-gradients.

    Attributes:
        bank: with all parts of a trigger.
        kinds: with triggers of a single kind.
        autoencoder: of the latent part.
    """

    bank: float = 1.0
    kinds: Mapping[str, float] = MappingProxyType({})
    autoencoder: float = 0.0

    def of(self, kind: str) -> float:
        """With triggers of a single kind."""
        return self.kinds.get(kind, self.bank)


def timed(classifier: Classifier, images: LabelledImages, search: SearchSettings, job: Job) -> Pace:
    """Time one step of each sort that this search has; the classifier is left as it was.

    Processes divide triggers among themselves, and the images of a step of the autoencoder; all have to call this.
    """
    shape = images.shape
    some = images.take(range(min(_MOST_IMAGES, images_at_once(shape), len(images))))
    pixels, labels = some.batch(range(len(some)), classifier.device)
    index = torch.arange(len(pixels), device=pixels.device) % _ROWS
    processes: int = job.accelerator.num_processes

    def train() -> Autoencoder:
        return train_autoencoder(some, steps=1, batch=len(some), device=classifier.device)

    with frozen(classifier):
        quick = folded(classifier, pixels[:2])

        def step(triggers: Triggers) -> None:
            stamped = triggers(pixels, index)
            with fast_autocast(pixels.device):
                loss = functional.cross_entropy(quick(stamped).float(), labels)
            torch.autograd.grad(loss, list(triggers.parameters()))[0].sum().item()  # waits for the device

        def seconds(kind: str = "") -> float:
            parts = search.parts.only(kind) if kind else search.parts
            triggers = UNets(_ROWS, shape) if kind == "u-net" else Bank(_ROWS, shape, parts, autoencoder=autoencoder)
            placed = triggers.to(classifier.device).randomise(0)
            return _shortest(lambda: step(placed)) / (len(some) * processes)

        autoencoder = train() if search.needs_autoencoder else None
        return Pace(
            bank=seconds(),
            kinds={kind: seconds(kind) for kind in search.kinds},
            autoencoder=_shortest(train) / len(some) if search.needs_autoencoder else 0.0,
        )


def _shortest(act: Callable[[], object]) -> float:
    """Seconds of the fastest of a few tries: the first one also prepares what the others use."""
    taken = []
    for _ in range(_STEPS):
        started = time.perf_counter()
        act()
        taken.append(time.perf_counter() - started)
    return min(taken)
