"""A model's architecture with weights drawn anew."""

from __future__ import annotations

import torch
from torch import nn

from phard_hub.errors import InputError
from phard_hub.models.classifier import Classifier


def reinitialised(classifier: Classifier, seed: int) -> Classifier:
    """A copy with new weights: of a model of transformers drawn as its class draws them, of others layer by layer.

    Raises:
        InputError: another network has weights outside of layers that can draw them.
    """
    from transformers import PreTrainedModel

    copy = classifier.clone()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(classifier.network, PreTrainedModel):
            copy.network = type(classifier.network)(classifier.network.config)
        else:
            _draw_layers(copy.network)
    return copy.to(classifier.device)


def _draw_layers(network: nn.Module) -> None:
    for layer in network.modules():
        if next(layer.parameters(recurse=False), None) is None:
            continue
        # MultiheadAttention of torch has it under another name
        draw = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if draw is None:
            kind = type(layer).__name__
            raise InputError(f"The weights of a {kind} cannot be drawn anew.", advice="Start from the model's weights.")
        draw()
