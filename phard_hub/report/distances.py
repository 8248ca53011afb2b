"""Rates and class distances, as records: what everything else in a report is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from phard_hub.report.base import Count, Record, Size
from phard_hub.report.checks import of_distances, of_pair, of_rate, require
from phard_hub.settings import Share

Dimension = Annotated[int, Field(ge=1, le=2**16)]


GREY_LEVELS = (5.0, 10.0, 20.0, 30.0)
"""Sizes of changes at which the success of universal triggers is looked at, in grey levels (0-255) RMS."""


class Rate(Record):
    """A share of n images with its 95 % Wilson interval; all values in [0, 1]."""

    value: Share
    n: Count
    low: Share
    high: Share

    def __str__(self) -> str:
        """Percent with interval; nothing seen in n prints as an upper limit (rule of three)."""
        if self.value == 0 and self.n:
            return f"<= {300 / self.n:.2g} % (0 of {self.n})"
        return f"{100 * self.value:.2f} % [{100 * self.low:.2f}, {100 * self.high:.2f}]"

    def may_be_chance(self, classes: int) -> bool:
        """Whether guessing among so many classes may be right as often, as far as n images can tell."""
        return self.n > 0 and self.low * classes <= 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require(of_rate(self))
        return self


class PairDistance(Record):
    """How small a pervasive change sends images of ``source`` to ``target``.

    ``source`` is None for a universal trigger (all other classes to ``target``). ``distance`` is the
    mean L2 norm of the change per image, pixels in [0, 1]; ``rms`` the same in grey levels (0-255)
    per pixel value. Both are None where the search never reached the success bound. They are those of images that
    neither fitted the trigger nor chose it, and ``low`` to ``high`` is the 95 % interval if other images had judged and
    another search had looked.
    ``at`` is the success of a universal trigger whose change of each image has at most `GREY_LEVELS`.
    """

    source: Count | None
    target: Count
    reached: bool
    distance: Size | None
    low: Size | None
    high: Size | None
    rms: Size | None
    success: Rate
    at: tuple[Rate, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require(of_pair(self))
        return self


class ClassDistances(Record):
    """The directed matrix of class distances of one classifier, and how it was found."""

    labels: tuple[str, ...]
    chosen: tuple[Count, ...] = Field(default=(), description="the classes that it is about; empty for all")
    pairs: tuple[PairDistance, ...]
    universal: tuple[PairDistance, ...]
    kinds: dict[str, tuple[PairDistance, ...]] = Field(
        default_factory=dict, description="universal triggers that may use one kind of change only"
    )
    success_bound: Share
    image_shape: tuple[Dimension, Dimension, Dimension]
    mean: Size | None = Field(description="mean L2 over the pairs reached")
    low: Size | None = Field(description="lower end of the 95 % bootstrap interval of the mean")
    high: Size | None = Field(description="upper end of the 95 % bootstrap interval of the mean")
    settings: dict[str, Any]
    sample_gradients: Count
    sample_forwards: Count
    seconds: Size

    @property
    def classes(self) -> tuple[int, ...]:
        """Numbers of the classes that it is about: all, or those that somebody chose."""
        return self.chosen or tuple(range(len(self.labels)))

    @property
    def reached(self) -> tuple[PairDistance, ...]:
        """Pairs whose trigger met the success bound on held-out images."""
        return tuple(pair for pair in self.pairs if pair.reached)

    @property
    def smallest(self) -> PairDistance | None:
        """The pair that is easiest to turn, or None if no pair was reached."""
        return min(self.reached, key=lambda pair: pair.distance or 0.0, default=None)

    @property
    def possible(self) -> int:
        """Ordered pairs of the classes that it is about, measured or not."""
        return len(self.classes) * (len(self.classes) - 1)

    def best_at(self, level: int, target: int) -> Rate | None:
        """What the best universal trigger of any kind does at a size; None if none was tried.

        Args:
            level: which of `GREY_LEVELS`.
            target: number of the class that images are turned to.
        """
        every = (*self.universal, *(each for found in self.kinds.values() for each in found))
        rates = [each.at[level] for each in every if each.target == target and each.at]
        return max(rates, key=lambda rate: rate.value, default=None)

    @property
    def rms_per_l2(self) -> float:
        """Grey levels RMS per unit of L2 distance, for this image shape."""
        return grey_levels(1.0, self.image_shape)

    @property
    def mean_rms(self) -> float | None:
        """Mean distance in grey levels (0-255) RMS over the pairs reached."""
        return None if self.mean is None else self.mean * self.rms_per_l2

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require(of_distances(self))
        return self


def grey_levels(l2: float, image_shape: Sequence[int]) -> float:
    """A change of this L2 norm (pixels in [0, 1]) as grey levels (0-255), root mean square over an image's values."""
    return 255.0 * l2 / math.sqrt(math.prod(image_shape))


def both_reached(before: Sequence[PairDistance], after: Sequence[PairDistance]) -> list[tuple[float, float]]:
    """(before, after) distances of the pairs that were reached both times."""
    later = {(pair.source, pair.target): pair.distance for pair in after if pair.reached}
    return [
        (pair.distance, found)
        for pair in before
        if pair.reached and pair.distance is not None and (found := later.get((pair.source, pair.target))) is not None
    ]


def mean_increase(both: Sequence[tuple[float, float]]) -> float | None:
    """Mean of the relative increases, pair by pair (1.0 is +100 %).

    None if nothing can be compared: an increase of next to nothing is none.
    """
    increases = [(after - before) / before for before, after in both if before > 0]
    mean = sum(increases) / len(increases) if increases else None
    return mean if mean is None or math.isfinite(mean) else None
