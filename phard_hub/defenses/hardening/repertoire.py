"""Which triggers a hardening keeps: their directions, their parts, and which image gets which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phard_hub.draws import Draws
from phard_hub.triggers.bank import KIND_OF
from phard_hub.triggers.pool import UNIVERSAL, Directions, all_pairs


@dataclass(frozen=True)
class Repertoire:
    """P triggers: every ordered pair, a universal one for each class, and universal ones of a single kind.

    Attributes:
        source: ``(P,)``, a class or `UNIVERSAL`.
        target: ``(P,)``.
        strengths: ``(P, parameters)``, 1 for the parameters that a trigger uses and 0 for the others.
        group: ``(P,)``, 0 for pairs, 1 for universal triggers, 2 for those of a single kind.
        classes: Numbers of the classes in use, ascending.
    """

    source: Tensor
    target: Tensor
    strengths: Tensor
    group: Tensor
    classes: tuple[int, ...]

    @classmethod
    def of(cls, classes: tuple[int, ...], parameters: list[str], *, max_pairs: int, seed: int) -> Repertoire:
        """All pairs, or a random choice of ``max_pairs``, of triggers with the named parameters."""
        pairs = all_pairs(classes)
        if len(classes) > 2 and len(pairs) > max_pairs:
            order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
            pairs = sorted(pairs[i] for i in order[:max_pairs])
        whole = Directions.of(pairs, classes if len(classes) > 2 else ())  # of two, pairs say it all
        kinds = list(dict.fromkeys(KIND_OF[name] for name in parameters))
        used = torch.tensor([[float(KIND_OF[name] == kind) for name in parameters] for kind in kinds])
        singles = len(kinds) * len(classes)
        return cls(
            source=torch.cat([whole.source, torch.full((singles,), UNIVERSAL)]),
            target=torch.cat([whole.target, torch.tensor(classes).repeat(len(kinds))]),
            strengths=torch.cat([torch.ones(len(whole), len(parameters)), used.repeat_interleave(len(classes), dim=0)]),
            group=torch.cat([(whole.source == UNIVERSAL).long(), torch.full((singles,), 2)]),
            classes=classes,
        )

    def __len__(self) -> int:
        """The number of triggers."""
        return len(self.source)

    def components(self) -> Tensor:
        """What the bank's rows add up to, for each trigger ``(P, 3)``: its target, its source, its own.

        Triggers of one target resemble each other, and so do those of one source. Shared rows learn from all
        images of their class, a trigger's own row only what is special about the pair. A trigger of a single
        kind is on its own: what the others leave to another kind it must find itself.
        """
        number, size = torch.arange(len(self)), self.classes[-1] + 1
        own, none = 2 * size + number, torch.full_like(number, -1)
        pair, single = self.group == 0, self.group == 2
        return torch.stack(
            [
                torch.where(single, none, self.target),
                torch.where(pair, size + self.source, none),
                torch.where(pair | single, own, none),
            ],
            dim=1,
        )

    def choose(self, labels: Tensor, shares: tuple[float, float, float], worth: Tensor, draws: Draws) -> Tensor:
        """A trigger for each image, from its own class or from all, to another class.

        Args:
            labels: true classes ``(N,)`` of the whole batch.
            shares: of the images, for each group, where all triggers are worth the same.
            worth: ``(P,)``, how much more often a trigger is chosen than the others of its group.
            draws: source of the choice, for the images of this process.
        """
        # How many of each group an image can have, on average: pairs of its own class, and no way to itself.
        count = len(self.classes)
        usable = torch.tensor([1.0, count - 1, count - 1]) / count
        sizes = (torch.bincount(self.group, minlength=3) * usable).clamp(min=1)
        # Never quite nothing: a class whose pairs were left out still has its universal triggers.
        weights = (torch.tensor(shares).clamp(min=1e-9) / sizes)[self.group] * worth
        mine = (self.source == UNIVERSAL) | (self.source == labels[:, None])
        return draws.chosen(weights * (mine & (self.target != labels[:, None])))
