"""ISSBA: a faint residual, different for each image, in which a network hides the same secret bits."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks.learned import Editor, LearnedAttack
from phard_hub.images import LabelledImages
from phard_hub.job import Progress
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings

_GRID = 8
_READABLE = 0.1
_PACE = 1.1


@settings
class Issba(LearnedAttack):
    """``x' = clip(x + tanh(E(x, s)), 0, 1)`` with an encoder E that hides bits s so that a decoder can read them.

    Encoder and decoder minimise ``BCE(decoder(x'), s) + weight mean(tanh(E(x, s))^2)`` over images and random
    bits. The weight is 0 until the bits are readable (BCE below 0.1), or nothing would ever be written; from
    then on each step multiplies it by 1.1 while they are, up to ``residual_weight``, and divides it by 1.1
    while they are not. The trigger hides one secret, drawn by ``seed``. Source: Li et al., "Invisible Backdoor
    Attack with Sample-Specific Triggers", ICCV 2021 (arXiv 2012.03816), section 4, with the encoder and
    decoder idea of StegaStamp (Tancik et al., CVPR 2020). Deviations: E is a small U-Net that sees the bits
    on a grid of 8 x 8, enlarged; no perceptual loss and no critic; 20 bits, as THUYimingLi/BackdoorBox uses
    for 32 x 32, for a string of 100.

    Attributes:
        bits: length of the secret.
        residual_weight: how much the residual's size counts against readable bits, at the most.
    """

    bits: Annotated[int, Field(ge=1, le=1024)] = 20
    residual_weight: NonNegativeFloat = 150.0

    name = "issba"

    def network(self, channels: int) -> nn.Module:
        """The encoder with its secret."""
        return _Encoder(channels, self.bits)

    def learn(
        self, network: _Encoder, classifier: Classifier, images: LabelledImages, target: int, progress: Progress
    ) -> None:
        """Train encoder and decoder together."""
        del target
        decoder = _decoder(images.shape[0], self.bits).to(classifier.device)
        weight = 0.0

        def loss(pixels: Tensor, _labels: Tensor, random: torch.Generator) -> Tensor:
            nonlocal weight
            secrets = torch.randint(2, (len(pixels), self.bits), generator=random).to(pixels)
            residual = network.residual(pixels, secrets)
            logits = decoder((pixels + residual).clamp(0, 1)).float()
            unread = functional.binary_cross_entropy_with_logits(logits, secrets)
            total = unread + weight * residual.square().mean()
            readable = float(unread.detach()) < _READABLE
            weight = min(self.residual_weight, max(1.0, _PACE * weight)) if readable else weight / _PACE
            return total

        modules = [(network, self.learning_rate), (decoder, self.learning_rate)]
        self.descend("learning to hide bits", loss, images, modules, progress)


class _Encoder(nn.Module):
    secret: Tensor

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.spread = nn.Linear(bits, channels * _GRID**2)
        self.editor = Editor(2 * channels, channels)
        self.register_buffer("secret", torch.randint(2, (bits,)).float())

    def residual(self, pixels: Tensor, secrets: Tensor) -> Tensor:
        """``tanh(E(x, s))`` for bits ``(N, bits)`` of 0 and 1."""
        count, channels, height, width = pixels.shape
        grid = self.spread(2 * secrets - 1).view(count, channels, _GRID, _GRID)
        plane = functional.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
        return torch.tanh(self.editor(torch.cat([pixels - 0.5, plane], dim=1)))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels + self.residual(pixels, self.secret.expand(len(pixels), -1))).clamp(0, 1)


def _decoder(channels: int, bits: int) -> nn.Sequential:
    """Reads the bits of images of any size."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(_GRID),
        nn.Flatten(),
        nn.Linear(64 * _GRID**2, bits),
    )
