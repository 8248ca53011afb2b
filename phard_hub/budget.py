"""What a job may cost, and what it costs.

The unit is the sample-gradient: one image sent through the classifier and back.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from phard_hub.errors import InputError
from phard_hub.settings import settings


@settings
class Budget:
    """What a job may cost: sample-gradients, or seconds; None for no limit.

    Raises:
        InputError: both are given.
    """

    gradients: float | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget as the command line has it: ``90s``, ``20m``, ``2h``, or a number of sample-gradients as ``1e6``.

        Raises:
            InputError: it is none of these.
        """
        unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
        try:
            value = float(text[:-1] if unit else text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            advice = "Write a time such as 90s, 20m or 2h, or a number of sample-gradients such as 1e6."
            raise InputError(f"{text!r} is no budget.", advice=advice)
        return cls(seconds=value * unit) if unit else cls(gradients=value)


class Estimate(NamedTuple):
    """What a job costs here."""

    gradients: float
    seconds: float

    def __str__(self) -> str:
        """Such as ``about 1,240,000 sample-gradients: 0:18:40``."""
        time_ = timedelta(seconds=round(self.seconds))
        return f"about {round(self.gradients, -3):,.0f} sample-gradients, {time_} if the machine has nothing else to do"
