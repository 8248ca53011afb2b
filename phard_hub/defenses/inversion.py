"""The smallest mask and pattern that send images to a class: how Neural Cleanse and MOTH find triggers.

    x' = (1 - M) x + M P,    minimise  cross-entropy(f(x'), target) + price * |M|_1

The price follows the success: it rises while nearly all images are turned, and falls while they are not. Sources: Wang
et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks" (S&P 2019); Tao et al., "Model
Orthogonalization: Class Distance Hardening in Neural Networks for Better Security" (MOTH, S&P 2022) and its code,
Gwinhen/MOTH, whose triggers are jittered whenever a smaller one was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional

from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import BelowOne, Share, settings

_ALMOST_TWO = 2 - 1e-7


@dataclass(frozen=True)
class Stamps:
    """G triggers of a mask and a pattern each.

    Attributes:
        mask: ``(G, 1, H, W)`` in [0, 1].
        pattern: ``(G, C, H, W)`` in [0, 1].
        size: ``(G,)``, sum of the mask over channels, rows and columns; C H W where no trigger worked.
    """

    mask: Tensor
    pattern: Tensor
    size: Tensor

    @classmethod
    def drawn(cls, count: int, shape: tuple[int, int, int], random: torch.Generator, device: torch.device) -> Self:
        """Uniform masks and patterns for images ``(C, H, W)``, of which none is known to work."""
        mask = torch.rand(count, 1, *shape[1:], generator=random).to(device)
        pattern = torch.rand(count, *shape, generator=random).to(device)
        return cls(mask, pattern, torch.full((count,), float(math.prod(shape)), device=device))

    def __call__(self, pixels: Tensor, which: Tensor) -> Tensor:
        """Pixels ``(N, C, H, W)`` with a trigger each, whose numbers are ``which (N,)``."""
        return torch.lerp(pixels, self.pattern[which], self.mask[which].expand_as(pixels))

    @property
    def failed(self) -> Tensor:
        """Which of them never worked, ``(G,)``."""
        return self.size >= self.pattern[0].numel()

    def of(self, which: slice | Tensor) -> Stamps:
        """Some of them."""
        return Stamps(self.mask[which], self.pattern[which], self.size[which])


@settings
class Inversion:
    """How triggers are searched.

    Attributes:
        inner_steps: of Adam, each on all images.
        bound: success from which a trigger counts.
        price: of the mask's sum, at the start.
        factor: the price is multiplied by it, or divided by its power of 1.5.
        patience: steps in a row before that.
        jitter: largest change of mask and pattern when a smaller trigger was found.
        learning_rate: of Adam.
        betas: of Adam.
    """

    inner_steps: PositiveInt = 500
    bound: Share = 0.99
    price: PositiveFloat = 1e-3
    factor: PositiveFloat = 1.5
    patience: PositiveInt = 10
    jitter: NonNegativeFloat = 0.01
    learning_rate: NonNegativeFloat = 0.1
    betas: tuple[BelowOne, BelowOne] = (0.5, 0.9)

    def invert(
        self,
        classifier: Classifier,
        pixels: Tensor,
        which: Tensor,
        targets: Tensor,
        start: Stamps,
        random: torch.Generator,
    ) -> Stamps:
        """The smallest triggers that were found; where none worked, the last.

        Args:
            classifier: what they are for; it is left as it is.
            pixels: ``(N, C, H, W)`` in [0, 1].
            which: ``(N,)``, the trigger of each image; each trigger has some.
            targets: ``(G,)``.
            start: where the search begins.
            random: source of the jitter.
        """
        search = _Search(self, start)
        counts = torch.bincount(which, minlength=len(targets))
        with frozen(classifier), torch.enable_grad():
            for _ in range(self.inner_steps):
                stamps = search.stamps()
                logits = classifier(stamps(pixels, which)).float()
                hits = (logits.argmax(1) == targets[which]).float()
                losses = functional.cross_entropy(logits, targets[which], reduction="none")
                success, loss = (
                    torch.zeros_like(stamps.size).index_add(0, which, each) / counts for each in (hits, losses)
                )
                search.step(stamps, loss, success, random)
        return search.best


class _Search:
    """The state of a search: what is moved, its prices, and the best triggers so far."""

    def __init__(self, settings: Inversion, start: Stamps) -> None:
        self.settings = settings
        largest = torch.full_like(start.size, float(start.pattern[0].numel()))
        self.best = replace(start, size=largest)
        self.mask, self.pattern = (_closed(each).requires_grad_(True) for each in (start.mask, start.pattern))
        self.optimizer = torch.optim.Adam([self.mask, self.pattern], settings.learning_rate, betas=settings.betas)
        self.price = torch.full_like(start.size, settings.price)
        self.above = torch.zeros_like(start.size)
        self.below = torch.zeros_like(start.size)

    def stamps(self) -> Stamps:
        """What is tried next."""
        mask, pattern = _opened(self.mask), _opened(self.pattern)
        return Stamps(mask, pattern, mask.sum((1, 2, 3)) * pattern.shape[1])

    def step(self, tried: Stamps, loss: Tensor, success: Tensor, random: torch.Generator) -> None:
        """Keep what is better, move, and let the prices follow."""
        reached = success >= self.settings.bound
        better = reached & (tried.size < self.best.size)
        total = (loss + self.price * tried.size / tried.pattern.shape[1]).sum()
        gradients = torch.autograd.grad(total, [self.mask, self.pattern])
        for parameter, gradient in zip((self.mask, self.pattern), gradients, strict=True):
            parameter.grad = gradient
        self._keep(tried, better)
        self.optimizer.step()
        self._jitter(better, random)
        self._follow(reached)

    def _keep(self, tried: Stamps, better: Tensor) -> None:
        place = better[:, None, None, None]
        never = self.best.failed[:, None, None, None]  # of what never worked the last is kept
        best, new = self.best, Stamps(*(each.detach() for each in (tried.mask, tried.pattern, tried.size)))
        self.best = Stamps(
            torch.where(place | never, new.mask, best.mask),
            torch.where(place | never, new.pattern, best.pattern),
            torch.where(better, new.size, best.size),
        )

    @torch.no_grad()
    def _jitter(self, better: Tensor, random: torch.Generator) -> None:
        for parameter, best in ((self.mask, self.best.mask), (self.pattern, self.best.pattern)):
            noise = self.settings.jitter * (2 * torch.rand(best.shape, generator=random) - 1).to(best)
            again = _closed((best + noise).clamp(0, 1))
            parameter.copy_(torch.where(better[:, None, None, None], again, parameter))

    def _follow(self, reached: Tensor) -> None:
        settings = self.settings
        self.above = torch.where(reached, self.above + 1, 0.0)
        self.below = torch.where(reached, 0.0, self.below + 1)
        dearer, cheaper = self.above >= settings.patience, self.below >= settings.patience
        self.price = torch.where(dearer, self.price * settings.factor, self.price)
        self.price = torch.where(cheaper, self.price / settings.factor**1.5, self.price)
        self.above, self.below = self.above * ~dearer, self.below * ~cheaper


def _opened(value: Tensor) -> Tensor:
    """From any number into [0, 1]."""
    return torch.tanh(value) / _ALMOST_TWO + 0.5


def _closed(value: Tensor) -> Tensor:
    """Back from there."""
    return torch.atanh(((value.detach() - 0.5) * _ALMOST_TWO).clamp(-1 + 1e-6, 1 - 1e-6))
