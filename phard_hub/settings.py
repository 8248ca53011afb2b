"""Settings: frozen, validated where they are made, in Python as in TOML, and the ranges that their numbers lie in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, NamedTuple, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from phard_hub.errors import InputError, harmless

Share = Annotated[float, Field(ge=0, le=1)]
"""A share of something, or a difference between two pixel values."""
BelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A share that can never be all."""
LARGEST_SEED = 2**32 - 1
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""What every generator takes: those of NumPy take the fewest."""

T = TypeVar("T")
_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(kind: type[T]) -> type[T]:
    """Make a class a frozen dataclass with keyword arguments only, whose values are checked when it is made.

    Wrong types, numbers out of range and unknown names raise `InputError`; ``dataclasses.replace`` checks again.
    """
    made: type[Any] = dataclass(kind, frozen=True, kw_only=True, config=_STRICT)
    begin: Callable[..., None] = made.__init__

    @wraps(begin)
    def checked(self: T, **values: Any) -> None:  # noqa: ANN401 - the fields of the class
        try:
            begin(self, **values)
        except ValidationError as error:
            problem = f"These are no settings of {kind.__name__}: {first_fault(error)}."
            raise InputError(problem, advice=f"See the docstring of {kind.__name__}.") from error

    made.__init__ = checked
    return made


class Fault(NamedTuple):
    """Where a value is wrong, how, and what it is; the last may be anything, so show it with care."""

    place: str
    said: str
    value: Any


def fault_of(error: ValidationError) -> Fault:
    """The first of the faults."""
    first = error.errors(include_url=False)[0]
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return Fault("".join(parts).removeprefix("."), first["msg"].removeprefix("Value error, "), first["input"])


def first_fault(error: ValidationError) -> str:
    """Where something is wrong first, and how; what it holds there is not repeated."""
    fault = fault_of(error)
    return f"{harmless(fault.place)[:100]}: {fault.said}" if fault.place else fault.said
