"""A batch that does not fit into memory goes through a network part by part, and the gradients are those of the whole.

What a network computes on its way is kept until the gradients are taken, and takes far more memory than its weights: of
a ViT-B/16 at 224 x 224 pixels 0.15 GB for each image. Here nothing is kept of a part but its answers; when its gradient
is taken, the part goes through once more. That costs one more forward pass, and no objective has to know of it.

Batch norm that trains normalises each part by itself. Parts are every so many images of the batch, so that each is like
the whole; where many processes share a batch, each part is normalised in its process alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_AT_ONCE: ContextVar[int | None] = ContextVar("images_with_gradient", default=None)
_INSIDE: ContextVar[bool] = ContextVar("inside_of_a_part", default=False)


@contextmanager
def in_parts(at_once: int | None) -> Iterator[None]:
    """Inside, a classifier keeps what it computes of so many images at most; None keeps everything.

    Whoever takes gradients there must leave the network as it is, and listen to nothing inside of it, until they are
    taken.
    """
    token = _AT_ONCE.set(at_once)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)


def inside_of_a_part() -> bool:
    """Whether what is computed now is a part of a batch, and will be computed once more."""
    return _INSIDE.get()


def answers(network: nn.Module, compute: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """What a function of the network makes of a batch ``(N, ...)``, in parts if it is to be."""
    at_once = _AT_ONCE.get()
    if at_once is None or len(pixels) <= at_once or not torch.is_grad_enabled():
        return compute(pixels)
    parts = -(-len(pixels) // at_once)
    places = torch.cat([torch.arange(len(pixels))[k::parts] for k in range(parts)])

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _BuffersKept(network)

    token = _INSIDE.set(True)
    try:
        found = [checkpoint(compute, pixels[k::parts], use_reentrant=False, context_fn=contexts) for k in range(parts)]
    finally:
        _INSIDE.reset(token)
    return torch.cat(found)[places.argsort().to(pixels.device)]


class _BuffersKept:
    """Puts running statistics back, which have seen these images already; gradients of gradients enter it again."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.kept: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = [(buffer, buffer.clone()) for buffer in self.network.buffers()] if self.network.training else []

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for buffer, value in self.kept:
                buffer.copy_(value)
        self.kept = []
