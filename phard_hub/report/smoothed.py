"""What a vote under noise comes to: its accuracy, and how much of it no small change can turn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from phard_hub.report.base import Count, Record, Size
from phard_hub.report.checks import require
from phard_hub.report.distances import Rate

RADII = (0.063, 0.0895, 0.25, 0.5)
"""L2 norms of changes, pixels in [0, 1]: a signature in the lowest bits of 520 values on average and at most, and two
that are common in the literature."""


class Certified(Record):
    """The share of images that are classified correctly, whatever change of at most this L2 norm is made to them."""

    radius: Size
    accuracy: Rate


class Smoothed(Record):
    """Accuracy of the vote over noisy copies of each image (Cohen et al., ICML 2019), and its certificate.

    ``accuracy`` is that of the vote, where an image on which it abstains counts as wrong. The certificate of each image
    holds with probability ``1 - alpha``, for any classifier inside, and where the vote is what answers.
    """

    sigma: Annotated[float, Field(gt=0, le=10)]
    votes: PositiveInt
    guesses: PositiveInt
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    bits: Annotated[int, Field(ge=1, le=8)]
    shift: Count
    accuracy: Rate
    abstained: Rate
    at: tuple[Certified, ...]
    seconds: Size

    def __str__(self) -> str:
        """What voted, in the words of tables."""
        return f"{self.votes} votes, sigma {self.sigma:g}"

    @property
    def settings(self) -> tuple[float, ...]:
        """What has to be equal where two are compared."""
        return self.sigma, self.votes, self.guesses, self.alpha, self.bits, self.shift

    @property
    def farthest(self) -> float:
        """The radius of an image on which all votes agree; none is larger."""
        return farthest(self.sigma, self.votes, self.alpha)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require(_contradictions(self))
        return self


def farthest(sigma: float, votes: int, alpha: float) -> float:
    """The largest radius that so many votes can give: that of an image on which all of them agree."""
    return sigma * max(0.0, NormalDist().inv_cdf(math.exp(math.log(alpha) / votes)))


def _contradictions(found: Smoothed) -> Iterator[str]:
    """Larger changes spare fewer images, and none is certified beyond what the votes can give."""
    if tuple(each.radius for each in found.at) != RADII:
        yield f"the radii are not {', '.join(f'{radius:g}' for radius in RADII)}"
    rates = [found.accuracy, *(each.accuracy for each in found.at)]
    if len({rate.n for rate in (*rates, found.abstained)}) > 1 or found.accuracy.n == 0:
        yield "votes are on no images, or on other ones for each radius"
    values = [rate.value for rate in rates]
    if values != sorted(values, reverse=True):
        yield "more images are certified against a larger change"
    if found.accuracy.value + found.abstained.value > 1 + 1e-6:
        yield "the vote is right about images on which it abstains"
    for each in found.at:
        if each.accuracy.value > 0 and each.radius >= found.farthest:
            yield f"images are certified within {each.radius:g}, and {found} cannot reach beyond {found.farthest:.3g}"
