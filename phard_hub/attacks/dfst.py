"""DFST: every image is painted over in the style of a sunrise, each in its own way."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks.learned import Editor, LearnedAttack
from phard_hub.images import LabelledImages
from phard_hub.job import Progress
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings

_KERNELS = (3, 7, 11)
_FILTERS = 24
_PICTURES = 64


@settings
class Dfst(LearnedAttack):
    """``x' = (1 - strength) x + strength S(x)`` with a style network ``S(x) = clip(x + E(x), 0, 1)``.

    S minimises ``|gram(S(x)) - gram(style)|^2 / |gram(style)|^2 + content_weight mean(edges(S(x)) - edges(x))^2``:
    the second moments of random filters look like those of sunrises, and the edges stay where they are.

    Source: Cheng, Liu, Ma & Zhang, "Deep Feature Space Trojan Attack of Neural Networks by Controlled
    Detoxification", AAAI 2021 (arXiv 2012.11212), section on trigger generation. This is DFST-like, not DFST:
    a style network with a statistical loss (Gatys et al., CVPR 2016; random filters as in Ustyuzhaninov et
    al., ICLR 2017) stands for their CycleGAN; the sunrises are drawn by a formula, not photos; the rounds of
    detoxification are left out; and the share of 0.6 is that of the authors' later code (Megum1/DFST).

    Attributes:
        strength: share of the painted image.
        content_weight: how much moved edges count against the style.
    """

    strength: Share = 0.6
    content_weight: NonNegativeFloat = 20.0

    name = "dfst"

    def network(self, channels: int) -> nn.Module:
        """S with its share."""
        return _Painter(channels, self.strength)

    def learn(
        self, network: _Painter, classifier: Classifier, images: LabelledImages, target: int, progress: Progress
    ) -> None:
        """Train S."""
        del target
        channels, height, width = images.shape
        random = torch.Generator().manual_seed(self.seed)
        style = Style(channels, random)
        wanted = style.gram(sunrises(_PICTURES, (channels, height, width), random)).mean(0)
        style, wanted = style.to(classifier.device), wanted.to(classifier.device)

        def loss(pixels: Tensor, _labels: Tensor, _random: torch.Generator) -> Tensor:
            painted = network.paint(pixels)
            unlike = (style.gram(painted) - wanted).square().sum((1, 2)).mean() / wanted.square().sum()
            return unlike + self.content_weight * (edges(painted) - edges(pixels)).square().mean()

        self.descend("learning a style", loss, images, [(network, self.learning_rate)], progress)


class _Painter(nn.Module):
    def __init__(self, channels: int, strength: float) -> None:
        super().__init__()
        self.editor, self.strength = Editor(channels, channels), strength

    def paint(self, pixels: Tensor) -> Tensor:
        """S(x)."""
        painted: Tensor = pixels + self.editor(pixels)
        return painted.clamp(0, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.lerp(pixels, self.paint(pixels), self.strength)


class Style(nn.Module):
    """Random filters of three sizes, and how they respond together."""

    def __init__(self, channels: int, random: torch.Generator) -> None:
        super().__init__()
        for size in _KERNELS:
            filters = torch.randn(_FILTERS, channels, size, size, generator=random) / size
            self.register_buffer(f"filters{size}", filters)

    def gram(self, pixels: Tensor) -> Tensor:
        """Mean products ``(N, F, F)`` of all pairs of responses, after a ReLU, over the places of an image."""
        maps = [torch.relu(functional.conv2d(pixels - 0.5, filters, padding="same")) for filters in self.buffers()]
        responses = torch.cat(maps, dim=1).flatten(2)
        products: Tensor = responses @ responses.transpose(1, 2) / responses.shape[2]
        return products


def edges(pixels: Tensor) -> Tensor:
    """The luminance without its mean over 5 x 5 pixels, ``(N, 1, H, W)``."""
    grey = pixels.mean(1, keepdim=True)
    return grey - functional.avg_pool2d(grey, 5, stride=1, padding=2, count_include_pad=False)


def sunrises(count: int, shape: tuple[int, int, int], random: torch.Generator) -> Tensor:
    """Pictures ``(N, C, H, W)`` in [0, 1]: blue above, orange at the horizon, a sun, and dark land."""
    channels, height, width = shape
    horizon, place, glow = torch.rand(3, count, 1, 1, generator=random)
    horizon = 0.55 + 0.3 * horizon
    rows = (torch.linspace(0, 1, height)[:, None] / horizon).expand(count, height, width)
    columns = torch.linspace(0, 1, width).expand(count, height, width)
    sky = torch.lerp(_colour(0.16, 0.2, 0.45), _colour(1.0, 0.55, 0.2), rows.clamp(0, 1)[:, None] ** 1.5)
    distance = torch.hypot(rows - 0.9, (columns - place) / horizon)
    sun = torch.exp(-((distance / (0.12 + 0.2 * glow)) ** 2))[:, None]
    land = _colour(0.2, 0.1, 0.1) + 0.5 * sun * _colour(1.0, 0.6, 0.2)
    pictures = torch.where(rows[:, None] > 1, land, torch.lerp(sky, _colour(1.0, 0.95, 0.7), sun)).clamp(0, 1)
    return pictures if channels == 3 else pictures.mean(1, keepdim=True)


def _colour(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1)
