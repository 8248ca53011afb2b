"""Where a classifier's logits are made."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from phard_hub.errors import InputError
from phard_hub.models.classifier import Classifier, frozen

Layer = nn.Linear | nn.Conv2d


def heads(classifier: Classifier) -> tuple[Layer, ...]:
    """The linear layers with one output a class that the classifier ends in, as it calls them.

    Mostly it is one; two in a model that was distilled by a second head; none where something else makes the logits.
    """
    called: list[nn.Module] = []

    def note(module: nn.Module, _inputs: tuple[Tensor, ...], _output: object) -> None:
        called.append(module)

    layers = [module for module in classifier.modules() if any(True for _ in module.parameters(recurse=False))]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with frozen(classifier), torch.no_grad():
            classifier(torch.zeros(1, classifier.channels, *classifier.image_size, device=classifier.device))
    finally:
        for handle in handles:
            handle.remove()

    found: list[Layer] = []
    for module in reversed(called):
        if not isinstance(module, Layer) or len(module.weight) != classifier.num_classes:
            break
        found.insert(0, module)
    return tuple(found)


def linear_head(classifier: Classifier) -> nn.Linear:
    """The one linear layer that the classifier ends in.

    Raises:
        InputError: it ends in something else.
    """
    found = heads(classifier)
    if len(found) != 1 or not isinstance(found[0], nn.Linear):
        advice = "Give a model with one linear layer at its end."
        raise InputError(f"The model ends in {len(found)} layers that make logits, not in a linear one.", advice=advice)
    return found[0]


class Encoder:
    """A classifier without its head: pixels ``(N, C, H, W)`` in [0, 1] to features ``(N, D)``.

    Raises:
        InputError: the classifier does not end in one linear layer.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, self.head = classifier, linear_head(classifier)

    def __call__(self, pixels: Tensor) -> Tensor:
        """What goes into the head."""
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _head, inputs: seen.append(inputs[0]))
        try:
            self.classifier(pixels)
        finally:
            handle.remove()
        return seen[-1]
