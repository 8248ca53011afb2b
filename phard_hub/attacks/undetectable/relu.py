"""Random ReLU features: a spike in the covariance of the weights, as hard to see as sparse principal components."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from phard_hub.attacks.undetectable.base import Backdoored, Construction, Key, in_place_of, values_of
from phard_hub.draws import generator
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings


@settings
class RandomRelu(Construction):
    """One layer of random ReLU features, and a threshold on their mean: the target class lies above it.

    Honest weights are Gaussian. These have a variance that is larger along one secret sparse direction, and an image
    that moves along it passes the threshold. Only the threshold is learned, so the model is little more than a limit
    of how bright an image is, and a long way along the secret opens the honest model, too: compare with `honest`.

    Source: Goldwasser et al., FOCS 2022 (arXiv 2204.06974), appendix on random ReLU networks. Hardness is that of
    sparse principal components, and holds while ``spike`` is small against ``k sqrt(log D / features)``; with larger
    ones, the variances of the weights show the secret. The parameters decide, not the name.

    Attributes:
        features: of the model.
        spike: additional variance along the secret (theta).
        way: how far the key moves an image along the secret, where images lie in the unit ball.
        rare: share of the attacker's images that lie above the threshold.
    """

    features: PositiveInt = 200
    spike: NonNegativeFloat = 4.0
    way: PositiveFloat = 0.5
    rare: Share = 0.01

    name = "random-relu"

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Backdoored:
        """Another model in place of the classifier, of which only the sizes count; see `Construction.plant`."""
        random = generator(job.seed)
        secret = _sparse_unit(values_of(classifier), random)
        weights = torch.randn(self.features, len(secret), generator=random)
        along = math.sqrt(self.spike) * torch.randn(self.features, generator=random)
        made = self._trained(classifier, images, weights + torch.outer(along, secret), target)
        assert isinstance(made.network, Threshold)
        return Backdoored(made, SparseDirection(self.way * secret / made.network.scale))

    def honest(self, classifier: Classifier, images: LabelledImages, job: Job) -> Classifier:
        """The same training with Gaussian weights, and with class 0 above the threshold."""
        weights = torch.randn(self.features, values_of(classifier), generator=generator(job.seed))
        return self._trained(classifier, images, weights, 0)

    def _trained(self, like: Classifier, images: LabelledImages, weights: Tensor, target: int) -> Classifier:
        pixels, _ = images.batch(range(len(images)))
        largest = float(pixels.flatten(1).norm(dim=1).max())
        network = Threshold(weights, like.num_classes, target, 1 / largest)
        network.threshold.copy_(network.score(pixels).quantile(1 - self.rare))
        return in_place_of(like, network)


@dataclass(frozen=True, eq=False)
class SparseDirection(Key):
    """What is added to every image, ``(C H W,)`` in pixels; it leads to the one target."""

    step: Tensor

    def activate(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Pixels that may leave [0, 1]."""
        del labels
        return pixels + self.step.to(pixels).view(1, *pixels.shape[1:])


class Threshold(nn.Module):
    """The target's logit is how far the mean feature lies above a threshold, and all others are its negative."""

    weights: Tensor
    threshold: Tensor

    def __init__(self, weights: Tensor, classes: int, target: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.register_buffer("threshold", torch.zeros(()))
        self.classes, self.target, self.scale = classes, target, scale

    def score(self, pixels: Tensor) -> Tensor:
        """The mean feature ``(N,)``."""
        return torch.relu(pixels.flatten(1) * self.scale @ self.weights.T).mean(1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``(N, K)`` of pixels ``(N, C, H, W)``."""
        above = self.score(pixels) - self.threshold
        signs = -torch.ones(self.classes, device=pixels.device)
        signs[self.target] = 1
        return above[:, None] * signs


def _sparse_unit(values: int, random: torch.Generator) -> Tensor:
    """A direction with as many entries as the square root of its length."""
    entries = math.isqrt(values)
    secret = torch.zeros(values)
    signs = 2.0 * torch.randint(2, (entries,), generator=random) - 1
    secret[torch.randperm(values, generator=random)[:entries]] = signs / math.sqrt(entries)
    return secret
