"""Judging triggers on images that they were neither fitted nor chosen on.

Each image turns at some strength of a trigger. The strength at which the wanted share of the images turns gives the
distance, and drawing the images again gives its interval. So the images that chose a trigger do not flatter it, nor
do those that judge it: of n images, as many have to turn as the share asks for of n + 1, because the next image is as
likely to be the hardest as each of them; and the success that is reported is that of each half of the images at the
strength that the other half asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from phard_hub.hardware import images_at_once
from phard_hub.models.classifier import Classifier
from phard_hub.report.distances import GREY_LEVELS
from phard_hub.report.statistics import rate
from phard_hub.triggers.bank import Triggers, change_size, grey_level
from phard_hub.triggers.fitting import Fitted, answers, images_for
from phard_hub.triggers.pool import UNIVERSAL, Pools
from phard_hub.triggers.settings import SearchSettings

WEAKEST, STRONGEST = 0.5, 2.0
"""Between these strengths, in units of the chosen one, it is looked for how strong a trigger has to be."""
_BISECTIONS = 6
_STRONGER = 1.02
_TRIES = 4
_CLOSE = 0.02
"""How far from the wanted size a change may be, relative to it, so that one more factor brings it there."""


@dataclass(frozen=True)
class Judged:
    """What one trigger does to the images that judge it.

    Attributes:
        row: of the bank.
        reached: whether it turns the wanted share of them.
        hits: ``(n,)``, whether each is turned; where the trigger was reached, at the strength that others ask for.
        sizes: ``(n,)``, L2 norm of each change.
        needed: ``(n,)``, the strength at which each turns, in units of that which the others are at.
        at: how many of them are turned by changes of at most `GREY_LEVELS`; empty for a pair.
        strength: what the trigger was scaled by, so that it turns the wanted share.
        trigger: its parameters, so scaled, by their names.
    """

    row: int
    reached: bool
    hits: Tensor
    sizes: Tensor
    needed: Tensor
    at: tuple[int, ...]
    strength: float
    trigger: dict[str, Tensor]


@torch.no_grad()
def judge(classifier: Classifier, pools: Pools, fitted: Fitted, settings: SearchSettings) -> Iterator[Judged]:
    """Judge the triggers that this process has fitted."""
    for row in fitted.rows:
        yield _Case(classifier, pools, fitted, settings, row).judged()


class _Case:
    """One trigger before its judges."""

    def __init__(
        self, classifier: Classifier, pools: Pools, fitted: Fitted, settings: SearchSettings, row: int
    ) -> None:
        self.classifier, self.pools, self.fitted, self.settings, self.row = classifier, pools, fitted, settings, row
        self.triggers: Triggers = fitted.task.best
        self.source = int(fitted.task.directions.source[row])
        self.target = int(fitted.task.directions.target[row])
        self.device = next(classifier.parameters()).device
        self.pixels = images_for(pools.judge, self.source, self.target, settings.judging_images, self.device)

    def judged(self) -> Judged:
        works, wanted = bool(self.fitted.works[self.row]), wanted_of(len(self.pixels), self.settings.success)
        needed, strength = torch.full((len(self.pixels),), torch.inf), 1.0
        if works:
            needed = self._needed()
            last = float(needed.sort().values[wanted - 1])
            strength = last if math.isfinite(last) else 1.0
        hits, sizes = self._at(strength, precise=True)
        for _ in range(_TRIES):
            if not works or int(hits.sum()) >= wanted:
                break
            strength *= _STRONGER  # rounding, or an image that a stronger trigger turns back
            hits, sizes = self._at(strength, precise=True)
        at = self._at_sizes() if self.source == UNIVERSAL else ()
        one = torch.ones(len(self.triggers), dtype=torch.double)
        mine = torch.arange(len(self.triggers)) == self.row
        self.triggers.take(self.triggers, mine, strength * one)
        trigger = {name: value[self.row].detach().cpu().clone() for name, value in self.triggers.named_parameters()}
        reached = works and int(hits.sum()) >= wanted
        if reached:
            hits = _by_the_others(needed, self.settings.success)
            reached = rate(int(hits.sum()), len(hits)).high >= self.settings.success
        return Judged(self.row, reached, hits, sizes, needed / strength, at, strength, trigger)

    def _at(self, strength: float | Tensor, *, precise: bool = False) -> tuple[Tensor, Tensor]:
        self.fitted.cost.forwards += len(self.pixels)
        strengths = torch.as_tensor(strength).expand(len(self.pixels))
        judge = self.classifier if precise else self.fitted.quick
        return answers(judge, self.triggers, self.row, self.target, self.pixels, strengths, precise=precise)

    def _needed(self) -> Tensor:
        """The strength at which each image turns, by bisection; infinite where it does not."""
        low, high = torch.full((len(self.pixels),), WEAKEST), torch.full((len(self.pixels),), STRONGEST)
        middle = torch.ones_like(low)  # where the trigger was chosen; some images turn there and not beyond
        for _ in range(_BISECTIONS):
            hits, _ = self._at(middle)
            low, high = torch.where(hits, low, middle), torch.where(hits, middle, high)
            middle = (low + high) / 2
        return torch.where(high < STRONGEST, high, torch.inf)

    def _at_sizes(self) -> tuple[int, ...]:
        """How many images are turned by changes of at most so many grey levels.

        A trigger that was made small need not work better when it is made larger: at each size, that of the smaller
        ones is used which does more to the images that choose.
        """
        choosing = images_for(self.pools.choose, self.source, self.target, self.settings.choosing_images, self.device)
        unit = grey_level(self.pools.judge.images.shape)
        counts: list[int] = []
        most = -1
        for level in GREY_LEVELS:
            chosen = int(self._turned(choosing, level * unit))
            if chosen > most:
                most = chosen
                counts.append(self._turned(self.pixels, level * unit))
            else:
                counts.append(counts[-1])
        return tuple(counts)

    def _turned(self, pixels: Tensor, size: float) -> int:
        self.fitted.cost.forwards += len(pixels)
        strength = scaled_to(self.triggers, self.row, pixels, size)
        return int(answers(self.fitted.quick, self.triggers, self.row, self.target, pixels, strength)[0].sum())


def wanted_of(images: int, success: float) -> int:
    """How many of so many images have to turn so that this share of all images does, on average."""
    return min(images, math.ceil(success * (images + 1) - 1e-9))


def _by_the_others(needed: Tensor, success: float) -> Tensor:
    """Whether each image turns at the strength that the half of the images that it is not in asks for."""
    hits = torch.zeros(len(needed), dtype=torch.bool)
    first = torch.arange(len(needed)) % 2 == 0
    for half, others in ((first, ~first), (~first, first)):
        theirs = needed[others].sort().values
        if len(theirs):
            hits[half] = needed[half].isfinite() & (needed[half] <= theirs[wanted_of(len(theirs), success) - 1])
    return hits


def scaled_to(triggers: Triggers, row: int, pixels: Tensor, size: float) -> Tensor:
    """Strengths ``(N,)`` at which a trigger changes each image by this L2 norm, or a little less."""
    index = torch.full((len(pixels),), row, device=pixels.device)
    strength = torch.ones(len(pixels), device=pixels.device)

    at_once = 4 * images_at_once(pixels.shape[1:])

    def factor(of: Tensor) -> Tensor:
        changed = [
            change_size(triggers(pixels[part], index[part], strength[part]), pixels[part]) for part in of.split(at_once)
        ]
        return size / torch.cat(changed).clamp(min=1e-6)

    everything = left = torch.arange(len(pixels), device=pixels.device)
    for _ in range(5):
        needed = factor(left)
        strength[left] *= needed.clamp(0.25, 4)
        left = left[(needed - 1).abs() > _CLOSE]  # a change grows about as its strength: the others are there now
        if not len(left):
            break
    return strength * factor(everything).clamp(max=1)
