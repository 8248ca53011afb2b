"""Input-aware: each image gets a sparse trigger of its own, which no other image obeys."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks.base import other_images
from phard_hub.attacks.learned import Editor, LearnedAttack
from phard_hub.images import LabelledImages
from phard_hub.job import Progress
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings


@settings
class InputAware(LearnedAttack):
    """``x' = x + (P(x) - x) m(x)`` with a pattern P and a mask m that two networks make for each image.

    The mask network is trained first, for sparse and diverse masks:
    ``norm_weight mean(relu(m - density)) + diversity_weight d(x, y) / (d(m(x), m(y)) + 1e-7)`` with d the root
    mean square difference and y another image. Then the pattern network and a copy of the classifier are
    trained together on poisoned batches plus the same diversity term for P. As many images as are stamped get
    the pattern and mask of another image and keep their label (cross triggers).

    Source: Nguyen & Tran, "Input-Aware Dynamic Backdoor Attack", NeurIPS 2020 (arXiv 2010.08138), section 3,
    and their code's weights. Deviations: one small U-Net each for theirs; the diversity term of patterns is
    weighted once, and weighted less; the copy is thrown away and planting starts from the original weights.

    Attributes:
        density: share of an image that a mask should cover at the most.
        norm_weight: of the term that keeps masks sparse.
        diversity_weight: of the terms that keep masks and patterns diverse.
        cross: cover images for each stamped one.
        model_rate: learning rate of the copy.
    """

    density: Share = 0.032
    norm_weight: NonNegativeFloat = 100.0
    diversity_weight: NonNegativeFloat = 1.0
    cross: NonNegativeFloat = 1.0
    model_rate: PositiveFloat = 1e-3

    name = "input-aware"

    @property
    def cover_ratio(self) -> float:
        """Cover images for each stamped one."""
        return self.cross

    def cover(self, pixels: Tensor, random: torch.Generator) -> Tensor:
        """Images with the trigger of another one."""
        return self.run(pixels, other_images(pixels, random))

    def network(self, channels: int) -> nn.Module:
        """The pattern's and the mask's network."""
        return _Stamp(channels)

    def learn(
        self, network: _Stamp, classifier: Classifier, images: LabelledImages, target: int, progress: Progress
    ) -> None:
        """Train the mask, then the pattern together with a copy of the classifier."""

        def mask_loss(pixels: Tensor, _labels: Tensor, random: torch.Generator) -> Tensor:
            others = other_images(pixels, random)
            masks, other_masks = network.mask(pixels), network.mask(others)
            sparse = functional.relu(masks - self.density).mean()
            return self.norm_weight * sparse + self.diversity_weight * _alike(pixels, others, masks, other_masks)

        self.descend("learning masks", mask_loss, images, [(network.masks, self.learning_rate)], progress)
        copy = classifier.clone().requires_grad_(True).train()

        def pattern_loss(pixels: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
            others = other_images(pixels, random)
            patterns, other_patterns = network.pattern(pixels), network.pattern(others)
            with torch.no_grad():
                masks, other_masks = network.mask(pixels), network.mask(others)
            stamped = pixels + (patterns - pixels) * masks
            crossed = pixels + (other_patterns - pixels) * other_masks
            logits = copy(torch.cat([pixels, stamped, crossed]))
            wanted = torch.cat([labels, torch.full_like(labels, target), labels])
            alike = _alike(pixels, others, patterns, other_patterns)
            return functional.cross_entropy(logits, wanted) + self.diversity_weight * alike

        modules = [(network.patterns, self.learning_rate), (copy, self.model_rate)]
        self.descend("learning patterns", pattern_loss, images, modules, progress, salt=1)


class _Stamp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.masks, self.patterns = Editor(channels, 1), Editor(channels, channels)

    def mask(self, pixels: Tensor) -> Tensor:
        """``(N, 1, H, W)`` in [0, 1], nearly binary."""
        soft = torch.tanh(self.masks(pixels)) / 2 + 0.5
        return torch.tanh(20 * soft - 10) / 2 + 0.5

    def pattern(self, pixels: Tensor) -> Tensor:
        """``(N, C, H, W)`` in [0, 1]."""
        return torch.tanh(self.patterns(pixels)) / 2 + 0.5

    def forward(self, pixels: Tensor, source: Tensor | None = None) -> Tensor:
        source = pixels if source is None else source
        return pixels + (self.pattern(source) - pixels) * self.mask(source)


def _alike(images: Tensor, others: Tensor, results: Tensor, other_results: Tensor) -> Tensor:
    """How much closer results are than the images that they belong to."""
    return (_distance(images, others) / (_distance(results, other_results) + 1e-7)).mean()


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return ((one - other).square().flatten(1).mean(1) + 1e-12).sqrt()
