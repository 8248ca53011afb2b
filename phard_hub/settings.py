"""Numbers that can only lie in some range, beside those that pydantic has: settings of an experiment are checked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
"""A share of something, or a difference between two pixel values."""
LARGEST_SEED = 2**32 - 1
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""What every generator takes: those of NumPy take the fewest."""
BelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A share that can never be all."""
