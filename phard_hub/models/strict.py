"""A network that somebody hands over as an object: its tensors in the library's own class, without its code."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from phard_hub.errors import CheckpointError, first_line
from phard_hub.models.classifier import Classifier
from phard_hub.models.library_code import is_library_class
from phard_hub.models.tensors import difference


def library_twin(network: nn.Module) -> nn.Module:
    """A fresh network of the library's class that this one is of, or is made from, with the same config.

    Raises:
        CheckpointError: it is of no class of transformers, so nobody knows what it should be.
    """
    kind: Any = next((each for each in type(network).__mro__ if _is_model_of_library(each)), None)
    if kind is None:
        raise CheckpointError(
            f"{type(network).__name__} is made from no class of transformers.",
            advice="Save its tensors with the config.json of a class that the library has, and audit the folder.",
        )
    try:
        config: Any = network.config
        with torch.random.fork_rng():
            twin: nn.Module = kind(kind.config_class.from_dict(config.to_dict()))
    except Exception as error:  # the library's classes raise all kinds of errors at hostile values
        problem = f"{kind.__name__} cannot be built from the network's config: {first_line(error)}."
        raise CheckpointError(problem, advice="Take the config of the model that it was made from.") from error
    return twin.eval()


def in_library_class(classifier: Classifier) -> Classifier:
    """A classifier of the library's own class with exactly the tensors of this one, and nothing of its code.

    What is in the code of a network, such as a check of a signature or a path beside its layers, stays behind; what is
    in the weights comes along.

    Raises:
        CheckpointError: no class of transformers is known, or the tensors are not exactly those of that class.
    """
    twin = library_twin(classifier.network)
    state = {name: tensor.detach().cpu() for name, tensor in nn.Module.state_dict(classifier.network).items()}
    if why := difference(state, twin.state_dict()):
        advice = "Do not use it, or find out what the library does not know of it."
        raise CheckpointError(f"The tensors are not those of {type(twin).__name__}: {why}.", advice=advice)
    twin.load_state_dict(state)
    made = Classifier(
        twin,
        labels=classifier.labels,
        image_size=classifier.image_size,
        mean=classifier.mean.flatten().tolist(),
        std=classifier.std.flatten().tolist(),
        resize=classifier.resize,
        crop=classifier.crop,
        round_margin=classifier.round_margin,
        reverse_channels=classifier.reverse_channels,
    )
    return made.to(classifier.device).eval()


def _is_model_of_library(kind: type) -> bool:
    from transformers import PreTrainedModel

    return issubclass(kind, PreTrainedModel) and kind is not PreTrainedModel and is_library_class(kind)
