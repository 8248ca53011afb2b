"""From the tables of a TOML file to frozen dataclasses, with one line for each mistake."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from phard_hub.disk.toml import read_toml
from phard_hub.errors import ExperimentError, did_you_mean
from phard_hub.settings import fault_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST_EXPERIMENT = 2**16
Settings = TypeVar("Settings", bound="DataclassInstance")


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of an experiment file.

    Raises:
        ExperimentError: it cannot be read, or is no TOML.
    """
    return read_toml(path, LARGEST_EXPERIMENT, error=ExperimentError, advice="Give an experiment file (TOML).")


def configured(default: Settings, options: Mapping[str, Any], where: str) -> Settings:
    """The default with these fields changed; a table changes the fields of a field.

    Fields that do not take part in comparisons (keys: what was learned) are no options, and seeds are not either:
    those of a whole cell are given at once.

    Args:
        default: a frozen dataclass.
        options: new values by the name of the field, as a TOML file gives them.
        where: the table's name, for errors.

    Raises:
        ExperimentError: there is no such field, or its value has another type.
    """
    known = [field.name for field in fields(default) if field.compare and field.name != "seed"]
    refuse_unknown(options, known, where)
    hints = get_type_hints(type(default), include_extras=True)  # with the ranges of numbers
    changes = {}
    for name, value in options.items():
        current, place = getattr(default, name), f"{where}.{name}"
        if is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, Mapping):
                raise ExperimentError(f"{place} is {value!r}, not a table.", advice=f"Write [{place}] and its options.")
            changes[name] = configured(current, value, place)
        else:
            changes[name] = checked(value, hints[name], place)
    return replace(default, **changes)


def checked(value: Any, kind: Any, place: str) -> Any:  # noqa: ANN401 - any value, and any annotation
    """A value of a TOML file as this type: lists may become tuples and whole numbers floats, nothing else changes.

    Raises:
        ExperimentError: it is of another type.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        fault = fault_of(error)
        said = fault.said.removeprefix("Input ").replace("an object", "a table").replace("valid array", "list")
        at = fault.place if fault.place.startswith("[") or not fault.place else f".{fault.place}"
        raise ExperimentError(f"{place}{at} {said}, but is {fault.value!r}.", advice="Correct it.") from error


def refuse_unknown(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Name what there is instead of the first name that is not known.

    Raises:
        ExperimentError: one of the names is not known.
    """
    known = list(known)
    for name in names:
        if name not in known:
            there = f"There are: {', '.join(known)}."
            advice = f"{did_you_mean(name, known, '')} {there}".strip()
            raise ExperimentError(f"{where}: there is no {name!r}.", advice=advice)
