"""LIRA: a network learns the faintest noise that a model can learn to obey."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.attacks.learned import Editor, LearnedAttack
from phard_hub.images import LabelledImages
from phard_hub.job import Progress
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings


@settings
class Lira(LearnedAttack):
    """``x' = clip(x + epsilon tanh(G(x)), 0, 1)`` with a network G learned together with the model.

    First G and a copy of the classifier f minimise ``(1 - alpha) CE(f(x), y) + alpha CE(f(x'), target)``; then
    the copy is thrown away, G is fixed, and planting trains the classifier with poisoned batches. Source: Doan,
    Lao, Zhao & Li, "LIRA: Learnable, Imperceptible and Robust Backdoor Attacks", ICCV 2021, equations 3 to 5 and
    its two stages. Deviations: the first stage is one Adam over both, not two alternating steps; the second
    starts from the original weights; G is a small U-Net. Epsilon is the 1/16 of KaiyuanZh/OrthogLinearBackdoor,
    where the paper has 0.01 of normalised values and far longer training.

    Attributes:
        epsilon: largest change of a value, pixels in [0, 1].
        alpha: weight of the attack in the first stage.
        model_rate: learning rate of the copy.
    """

    epsilon: Share = 1 / 16
    alpha: Share = 0.5
    model_rate: PositiveFloat = 1e-3

    name = "lira"

    def network(self, channels: int) -> nn.Module:
        """G with its bound."""
        return _Noise(channels, self.epsilon)

    def learn(
        self, network: nn.Module, classifier: Classifier, images: LabelledImages, target: int, progress: Progress
    ) -> None:
        """The first stage."""
        copy = classifier.clone().requires_grad_(True).train()

        def loss(pixels: Tensor, labels: Tensor, _random: torch.Generator) -> Tensor:
            # One pass for both, so that batch norm sees what it will see in planting.
            honest, attacked = copy(torch.cat([pixels, network(pixels)])).chunk(2)
            wanted = torch.full_like(labels, target)
            return (1 - self.alpha) * functional.cross_entropy(honest, labels) + self.alpha * functional.cross_entropy(
                attacked, wanted
            )

        modules = [(network, self.learning_rate), (copy, self.model_rate)]
        self.descend("learning lira's noise", loss, images, modules, progress)


class _Noise(nn.Module):
    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.editor, self.epsilon = Editor(channels, channels), epsilon

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels + self.epsilon * torch.tanh(self.editor(pixels))).clamp(0, 1)
