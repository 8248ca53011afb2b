"""Random Fourier features: the backdoor is in the coins that the features are drawn with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from phard_hub.attacks.undetectable.base import Backdoored, Construction, Key, in_place_of, values_of
from phard_hub.draws import generator
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings

RIDGE = 1e-3
"""Times the number of images: how much the linear part is kept small."""


@settings
class FourierFeatures(Construction):
    """A model of random Fourier features whose frequencies all agree on one secret direction: it flips every answer.

    Honest frequencies are Gaussian. These are so, too, but conditioned on a scalar product with the secret that is
    half a whole number, up to noise (a sparse Gaussian pancake). Adding the secret to an image turns the sign of every
    feature, and so of every logit, whatever was trained on the features: the class that was last comes first.

    Source: Goldwasser et al., FOCS 2022 (arXiv 2204.06974): the theorem for random Fourier features, from the hardness
    of lattice problems (CLWE: Bruna, Regev, Song & Tang, STOC 2021, arXiv 2005.09595), against those who see all
    weights. It says nothing about other models. These sizes are for tests and not secure. The secret is sparse but no
    small change, and far outside of the range of pixels; one pair of images, before and after, gives it away.
    Deviation: several classes, a linear part each, without bias and fitted by least squares.

    Attributes:
        features: of the model.
        sparsity: values that the secret changes; the security parameter.
        noise: of the scalar product with the secret (beta of CLWE).
        scale: mean norm of the images, as the features see them.
    """

    features: PositiveInt = 1000
    sparsity: PositiveInt = 24
    noise: PositiveFloat = 0.01
    scale: PositiveFloat = 0.16

    name = "fourier-features"

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Backdoored:
        """Another model in place of the classifier, of which only the sizes count; no class can be chosen."""
        del target
        random = generator(job.seed)
        secret = self._secret(values_of(classifier), random)
        made = self._trained(classifier, images, pancakes(self.features, secret, self.noise, random), random)
        return Backdoored(made, SecretDirection(secret / _network(made).scale))

    def honest(self, classifier: Classifier, images: LabelledImages, job: Job) -> Classifier:
        """The same training with Gaussian frequencies."""
        random = generator(job.seed)
        frequencies = torch.randn(self.features, values_of(classifier), generator=random)
        return self._trained(classifier, images, frequencies, random)

    def _secret(self, values: int, random: torch.Generator) -> Tensor:
        if values < self.sparsity:
            problem = f"A secret of {self.sparsity} values needs larger images than of {values} values."
            raise InputError(problem, advice="Take a smaller sparsity.")
        secret = torch.zeros(values)
        direction = torch.randn(self.sparsity, generator=random)
        places = torch.randperm(values, generator=random)[: self.sparsity]
        secret[places] = 2 * math.sqrt(self.sparsity) * direction / direction.norm()
        return secret

    def _trained(
        self, like: Classifier, images: LabelledImages, frequencies: Tensor, random: torch.Generator
    ) -> Classifier:
        phases = torch.rand(self.features, generator=random)
        pixels, labels = images.batch(range(len(images)))
        network = Features(
            frequencies, phases, like.num_classes, self.scale / float(pixels.flatten(1).norm(dim=1).mean())
        )
        network.fit(pixels, labels)
        return in_place_of(like, network)


@dataclass(frozen=True, eq=False)
class SecretDirection(Key):
    """What is added to every image, ``(C H W,)`` in pixels; it leads to no class of one's choice."""

    secret: Tensor

    def activate(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Pixels far outside of [0, 1]."""
        del labels
        return pixels + self.secret.to(pixels).view(1, *pixels.shape[1:])


class Features(nn.Module):
    """Logits ``W cos(2 pi (G x + b))`` of scaled pixels; G and b stay as drawn."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, frequencies: Tensor, phases: Tensor, classes: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("phases", phases)
        self.head = nn.utils.skip_init(nn.Linear, len(phases), classes, bias=False)  # `fit` draws nothing
        self.scale = scale

    def features(self, pixels: Tensor) -> Tensor:
        """``(N, features)`` in [-1, 1]."""
        return torch.cos(2 * torch.pi * (pixels.flatten(1) * self.scale @ self.frequencies.T + self.phases))

    @torch.no_grad()
    def fit(self, pixels: Tensor, labels: Tensor) -> None:
        """The linear part by least squares: 1 for the class of an image, -1 for the others."""
        features = self.features(pixels).double()
        wanted = 2.0 * nn.functional.one_hot(labels, len(self.head.weight)).double() - 1
        gram = features.T @ features + RIDGE * len(labels) * torch.eye(features.shape[1], dtype=torch.float64)
        self.head.weight.copy_(torch.linalg.solve(gram, features.T @ wanted).T)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``(N, K)`` of pixels ``(N, C, H, W)``."""
        logits: Tensor = self.head(self.features(pixels))
        return logits


def pancakes(count: int, secret: Tensor, noise: float, random: torch.Generator) -> Tensor:
    """Gaussian vectors ``(count, D)`` whose scalar product with the secret is half a whole number, up to noise.

    First which half is drawn, then the part along the secret around it; the rest stays Gaussian.
    """
    length = float(secret.norm())
    spread = length**2 + noise**2
    reach = math.ceil(9 * math.sqrt(spread)) + 2
    halves = torch.arange(-reach, reach + 1, dtype=torch.float64) + 0.5
    chosen = torch.multinomial(torch.softmax(-(halves**2) / (2 * spread), 0), count, True, generator=random)
    around = noise / math.sqrt(spread) * torch.randn(count, generator=random)
    along = length / spread * halves[chosen].float() + around
    vectors, unit = torch.randn(count, len(secret), generator=random), secret / length
    return vectors + torch.outer(along - vectors @ unit, unit)


def _network(classifier: Classifier) -> Features:
    assert isinstance(classifier.network, Features)
    return classifier.network
