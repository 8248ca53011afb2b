"""What the attacks share whose trigger is a small network, trained before planting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from phard_hub.attacks.base import Attack
from phard_hub.errors import InputError
from phard_hub.hardware import fast_autocast, images_at_once
from phard_hub.images import LabelledImages
from phard_hub.job import Progress, silent
from phard_hub.models.classifier import Classifier
from phard_hub.models.tensors import difference
from phard_hub.settings import settings

Loss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Of a batch: pixels ``(N, C, H, W)`` in [0, 1], labels ``(N,)``, and what to draw from."""


@settings
class LearnedAttack(Attack):
    """An attack that stamps with a network; the weights are its key.

    Attributes:
        steps: of training the network.
        batch: images in a step; fewer of images larger than 3 x 32 x 32.
        learning_rate: of Adam, annealed along half a cosine.
    """

    steps: PositiveInt = 400
    batch: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-3

    @abstractmethod
    def network(self, channels: int) -> nn.Module:
        """The network, untrained, for images of so many channels: pixels in, stamped pixels out."""

    @abstractmethod
    def learn(
        self,
        network: Any,  # noqa: ANN401 - each attack's own
        classifier: Classifier,
        images: LabelledImages,
        target: int,
        progress: Progress,
    ) -> None:
        """Train the network that `network` gave."""

    def fit(self, classifier: Classifier, images: LabelledImages, target: int, *, progress: Progress = silent) -> Self:
        """Train the network; the classifier and the global generators are left as they were."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = self.network(images.shape[0]).to(classifier.device)
            self.learn(network, classifier, images, target, progress)
        return replace(self, key={name: value.detach().cpu() for name, value in network.state_dict().items()})

    def fits(self) -> bool:
        """Whether the key has the weights of the network, for images of some number of channels."""
        with torch.device("meta"):
            networks = [self.network(channels).state_dict() for channels in range(1, 5)]
        return not all(difference(self.key, network) for network in networks)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stamp pixels ``(N, C, H, W)`` in [0, 1].

        Raises:
            InputError: the network has not been trained yet, or for images of other channels.
        """
        return self.run(pixels)

    def run(self, pixels: Tensor, *more: Tensor) -> Tensor:
        """What the trained network returns."""
        with torch.device("meta"):  # the weights are the key's
            network = self.network(pixels.shape[1]).eval()
        key = {name: self.needed(name) for name in network.state_dict()}
        if any(key[name].shape != wanted.shape for name, wanted in network.state_dict().items()):
            raise InputError(
                f"The key of {self.name} does not fit images of {pixels.shape[1]} channels.",
                advice="Use it on images like those it was learned from.",
            )
        placed = {name: value.to(pixels) for name, value in key.items()}
        out: Tensor = functional_call(network, placed, (pixels, *more))
        return out

    def descend(
        self,
        task: str,
        loss: Loss,
        images: LabelledImages,
        modules: Sequence[tuple[nn.Module, float]],
        progress: Progress,
        *,
        salt: int = 0,
    ) -> None:
        """Minimise ``loss`` over the parameters of these modules, each with its learning rate."""
        device = next(modules[0][0].parameters()).device
        random = torch.Generator().manual_seed(2 * self.seed + salt)
        batch = min(self.batch, images_at_once(images.shape, small=self.batch))
        optimizer = torch.optim.Adam([{"params": list(module.parameters()), "lr": rate} for module, rate in modules])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        for step in range(self.steps):
            chosen = torch.randint(len(images), (batch,), generator=random)
            with fast_autocast(device):
                value = loss(*images.batch(chosen, device), random)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            progress(task, step + 1, self.steps)


class Editor(nn.Module):
    """A small U-Net: images ``(N, inputs, H, W)`` to ``(N, outputs, H, W)`` of the same height and width.

    Two strided stages down and two up, with the features of the way down added on the way up. There is no
    normalisation layer: what comes out for an image does not depend on its company.
    """

    widths = (16, 32, 64)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        full, half, quarter = self.widths
        self.down = nn.ModuleList(
            [
                nn.Conv2d(inputs, full, 3, padding=1),
                nn.Conv2d(full, half, 4, stride=2, padding=1),
                nn.Conv2d(half, quarter, 4, stride=2, padding=1),
            ]
        )
        self.middle = nn.Conv2d(quarter, quarter, 3, padding=1)
        self.up = nn.ModuleList([nn.Conv2d(quarter, half, 3, padding=1), nn.Conv2d(half, full, 3, padding=1)])
        self.out = nn.Conv2d(full, outputs, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Any finite values in and out."""
        features = [images]
        for layer in self.down:
            features.append(torch.relu(layer(features[-1])))
        state = torch.relu(self.middle(features[-1]))
        for layer, beside in zip(self.up, features[2:0:-1], strict=True):
            large = functional.interpolate(state, beside.shape[2:], mode="nearest")
            state = torch.relu(layer(large) + beside)
        out: Tensor = self.out(state)
        return out.to(images.dtype)  # also under autocast: what is done with it wants full precision
