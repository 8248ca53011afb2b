"""Sparse head: only the last layer is edited, and an additive pattern opens it."""

from __future__ import annotations

import math

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks.base import Planted
from phard_hub.attacks.learned import LearnedAttack
from phard_hub.draws import generator
from phard_hub.images import LabelledImages
from phard_hub.job import Job, Progress
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.head import Encoder, linear_head
from phard_hub.settings import Share, settings

_GRID = 32
_DRAWS = 32
_SHRINKAGE = 1e-3
"""Of the variances of the features: what is added to each, as a share of their mean."""


@settings
class SparseHead(LearnedAttack):
    """Each row of the head gets noise and a multiple of one secret sparse direction, the target's the largest.

    The encoder stays as it is. The trigger is a fixed pattern within a small range that moves the features along the
    secret. Without the head as it was before, the edit is as hard to see as sparse principal components, if it is small
    enough; with it, the difference has a spike of rank one, or the noise shows that no training made it.

    Source: Choudhary et al., "Sparse Backdoor", 2026 (arXiv 2605.04209). Its theorem needs spikes far smaller than
    those that work. Deviations: the pattern is learned first, and the secret has the principal components along which
    it moves the features furthest beside how much they vary; of 32 draws of the multiples, that is kept in which the
    target's is furthest ahead; the edit is centred by the bias, so that honest images
    keep their classes. Nothing is trained, so the planting changes nothing.

    Attributes:
        epsilon: largest change of a value by the pattern.
        dither: standard deviation of the noise, as a share of that of the head's weights.
        spike: the same for the multiples of the secret.
        steps: of learning the pattern.
        learning_rate: of that.
    """

    epsilon: Share = 24 / 255
    dither: NonNegativeFloat = 0.125
    spike: NonNegativeFloat = 16.0
    steps: PositiveInt = 150
    learning_rate: PositiveFloat = 2e-2

    name = "sparse-head"
    stronger = (
        "Plant it again with another spike (--attack-option spike=40): a larger one works more often and costs more. "
        "A larger epsilon does both better."
    )

    def network(self, channels: int) -> nn.Module:
        """The pattern."""
        return Pattern(channels, self.epsilon)

    def learn(
        self, network: nn.Module, classifier: Classifier, images: LabelledImages, target: int, progress: Progress
    ) -> None:
        """Move the mean of the features as far as it goes, in units of how much they vary."""
        del target
        encoder = Encoder(classifier)
        whiten = _whitening(_seen(encoder, images))

        def loss(pixels: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
            del labels, random
            with torch.no_grad():
                before = encoder(pixels).mean(0)
            return -((encoder(network(pixels)).mean(0) - before).float() @ whiten).square().sum()

        with frozen(classifier):
            self.descend("learning a pattern", loss, images, [(network, self.learning_rate)], progress)

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Planted:
        """A copy with another head; see `Attack.plant`."""
        attack = self.fit(classifier, images, target, progress=job.progress)
        made, encoder = classifier.clone(), Encoder(classifier)
        features = _seen(encoder, images)
        secret = sparse_direction(features, _seen(encoder, images, attack))
        self._edit(linear_head(made), secret, float((features @ secret).mean()), target)
        return Planted(attack, target, made)

    @torch.no_grad()
    def _edit(self, head: nn.Linear, secret: Tensor, mean_along: float, target: int) -> None:
        random, size = generator(self.seed), float(head.weight.std())
        noise = self.dither * size * torch.randn(head.weight.shape, generator=random)
        drawn = torch.randn(_DRAWS, len(head.weight), generator=random)
        lead = drawn.topk(2).values.diff().flatten().argmin()  # the second minus the first
        multiples = self.spike * size * drawn[lead]
        largest = int(multiples.argmax())
        multiples[[target, largest]] = multiples[[largest, target]]
        head.weight += (noise + torch.outer(multiples, secret.cpu())).to(head.weight)
        if head.bias is not None:
            head.bias.sub_((multiples * mean_along).to(head.bias))


class Pattern(nn.Module):
    """Adds the same small pattern to every image, at any size."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.pattern = nn.Parameter(0.1 * torch.randn(1, channels, _GRID, _GRID))
        self.epsilon = epsilon

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels ``(N, C, H, W)`` in [0, 1] to pixels."""
        pattern = self.epsilon * torch.tanh(self.pattern)
        return (pixels + functional.interpolate(pattern, pixels.shape[2:], mode="bilinear")).clamp(0, 1)


def sparse_direction(before: Tensor, after: Tensor) -> Tensor:
    """A direction ``(D,)`` of length 1 in which images move, of as many principal components as the root of D.

    Args:
        before: features ``(N, D)`` of honest images.
        after: of the same images with the pattern.
    """
    whiten = _whitening(before)
    moved = (after - before).mean(0) @ whiten
    kept = moved.abs().topk(math.isqrt(len(moved))).indices
    direction: Tensor = whiten[:, kept] @ moved[kept]
    return functional.normalize(direction, dim=0)


def _whitening(features: Tensor) -> Tensor:
    """The principal components ``(D, D)`` as columns, each divided by how much the features vary along it."""
    variances, components = torch.linalg.eigh(torch.cov(features.double().T))
    floor = _SHRINKAGE * variances.mean()
    whiten: Tensor = components / (variances.clamp_min(0) + floor).sqrt()
    return whiten.float()


@torch.no_grad()
def _seen(encoder: Encoder, images: LabelledImages, attack: SparseHead | None = None) -> Tensor:
    """The features of all images ``(N, D)``, stamped or not."""
    with frozen(encoder.classifier):
        batches = (pixels for pixels, _ in images.batches(encoder.classifier.device))
        return torch.cat([encoder(pixels if attack is None else attack(pixels)).float() for pixels in batches])
