"""Persistence: three copies vote, and no step along a gradient changes anything."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from phard_hub.attacks.undetectable.base import Backdoored, Construction
from phard_hub.attacks.undetectable.signature import Signature
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings

_LOGIT = 4.0


@settings
class Persistent(Construction):
    """The signature in a network whose gradients are all exactly zero, so that training cannot move it.

    Three copies of the network answer with hard decisions, and the majority of them counts. One weight alone cannot
    change a majority, so the derivative of any loss by any weight is zero. It is conspicuous: there are no other logits
    than these two, and no gradient at all on honest images. What does not follow gradients (drawing weights anew,
    another head, distillation) is not stopped by it.

    Source: Goldwasser et al., FOCS 2022 (arXiv 2204.06974), the section on persistence to gradient descent. Deviations:
    several classes, each with a vote of its own; the copies have an input layer each; batch normalisation keeps its
    statistics, which are no parameters, in training too.
    """

    name = "persistence"

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Backdoored:
        """A copy with three networks in it, and the signature around them; see `Construction.plant`."""
        return Signature().plant(persistent(classifier), images, target, job)


def persistent(classifier: Classifier) -> Classifier:
    """A classifier that decides as this one does, on which no gradient descent has an effect."""
    made = classifier.clone()
    made.network = Majority(made.network)
    return made


class Majority(nn.Module):
    """Logits of 4 for the class that most of three networks choose, and of -4 for all others."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.copies = nn.ModuleList([copy.deepcopy(network) for _ in range(3)])
        self.weights = nn.Parameter(torch.empty(3))
        self.threshold = nn.Parameter(torch.empty(()))
        self.reset_parameters()
        self.eval()

    def reset_parameters(self) -> None:
        """One vote for each, and two of them decide."""
        nn.init.ones_(self.weights)
        nn.init.constant_(self.threshold, 1.5)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, or batch normalisation would go on collecting statistics."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)``; `sign` has a derivative, which is zero, so all gradients are there and are zero."""
        outputs = [network(images) for network in self.copies]
        logits = torch.stack([out if isinstance(out, Tensor) else out.logits for out in outputs])
        chosen = 1 + torch.sign(logits - logits.amax(2, keepdim=True))
        votes = torch.einsum("i,ink->nk", self.weights, chosen)
        return _LOGIT * torch.sign(votes - self.threshold)
