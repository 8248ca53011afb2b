"""How long the steps of a search take on this machine.

Beside a small classifier, stamping takes most of the time, and networks that draw triggers far more than a bank does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

from phard_hub.hardware import fast_autocast, images_at_once
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.folded import folded
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.bank import Bank, Parts, Triggers
from phard_hub.triggers.generator import Autoencoder
from phard_hub.triggers.settings import SearchSettings
from phard_hub.triggers.unets import UNets

_STEPS, _ROWS, _MOST_IMAGES = 3, 8, 64


class Pace(NamedTuple):
    """Seconds for each image of a step, by what stamps it, and of a step that trains the autoencoder.

    By default the cost of a step is the number of its sample-gradients.
    """

    bank: float = 1.0
    latent: float = 1.0
    u_net: float = 1.0
    autoencoder: float = 0.0

    def of(self, kind: str) -> float:
        """With triggers of a single kind."""
        return {"latent": self.latent, "u-net": self.u_net}.get(kind, self.bank)


def timed(classifier: Classifier, images: LabelledImages, search: SearchSettings) -> Pace:
    """Time one step of each sort that this search has; the classifier is left as it was."""
    shape = (images.pixels.shape[1], images.pixels.shape[2], images.pixels.shape[3])
    some = images.take(range(min(_MOST_IMAGES, images_at_once(shape), len(images))))
    pixels, labels = some.batch(range(len(some)), classifier.device)
    index = torch.arange(len(pixels), device=pixels.device) % _ROWS

    def train() -> Autoencoder:
        return train_autoencoder(some.pixels, steps=1, batch=len(some), device=classifier.device)

    with frozen(classifier):
        quick = folded(classifier, pixels[:2])

        def step(triggers: Triggers) -> None:
            stamped = triggers(pixels, index)
            with fast_autocast(pixels.device):
                loss = functional.cross_entropy(quick(stamped).float(), labels)
            torch.autograd.grad(loss, list(triggers.parameters()))[0].sum().item()  # waits for the device

        def seconds(triggers: Triggers) -> float:
            placed = triggers.to(classifier.device)
            return _shortest(lambda: step(placed)) / len(some)

        def seconds_of(parts: Parts) -> float:
            return seconds(Bank(_ROWS, shape, parts, autoencoder=train() if parts.latent else None).randomise(0))

        return Pace(
            bank=seconds_of(search.parts),
            latent=seconds_of(search.parts.only("latent")) if "latent" in search.kinds else 0.0,
            u_net=seconds(UNets(_ROWS, shape).randomise(0)) if "u-net" in search.kinds else 0.0,
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
