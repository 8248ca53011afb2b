"""A network is made of the libraries' own code and of nothing else."""

from __future__ import annotations

import sys

from torch import nn

from phard_hub.errors import CheckpointError

_LIBRARIES = frozenset({"torch", "torchvision", "transformers", "timm"})
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def require_library_code(network: nn.Module) -> None:
    """Refuse a network that holds a module, a method or a hook that is not the libraries' own.

    Nothing that passed the audit should bring one along. If a library ever learns to fetch code in yet
    another way, this says so before the code runs on an image.

    Raises:
        CheckpointError: names the first such part.
    """
    for name, part in network.named_modules():
        foreign = _foreign(part)
        if foreign:
            raise CheckpointError(
                f"{name or 'The network'} holds {foreign}, which is not the library's.",
                advice="Use a model that needs no code but that of transformers or timm.",
            )


def _foreign(part: nn.Module) -> str:
    """What is not the libraries' own about one module, without the modules inside it; empty if nothing is."""
    if not is_library_class(type(part)):
        return f"the class {type(part).__module__}.{type(part).__qualname__}"
    for name, value in vars(part).items():  # what is put over a method of the class, such as forward
        if callable(value) and hasattr(type(part), name) and not is_of_library(str(value.__module__)):
            return f"the method {value.__module__}.{name}"
    return "a hook" if any(getattr(part, hooks) for hooks in _HOOKS) else ""


def is_library_class(kind: type) -> bool:
    """Whether a class is the one that a library has under this name; the name alone anybody can give to a class."""
    if not is_of_library(kind.__module__):
        return False
    found: object = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def is_of_library(module: str) -> bool:
    """Whether a module of Python belongs to one of the libraries."""
    return module.partition(".")[0] in _LIBRARIES
