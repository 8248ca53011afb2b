"""What all records have in common: they are frozen, and believe nothing that they read.

A record is JSON that anybody may have written. Types are strict (no text for a number), numbers lie in their range,
unknown and missing fields are errors, and so are two entries of one name, which different programs read differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phard_hub.disk.reading import read_regular
from phard_hub.settings import first_fault

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[float, Field(gt=0)]
Size = Annotated[float, Field(ge=0, le=1e15)]
Points = Annotated[float, Field(ge=-100, le=100)]
_MOST_VALUES = 2**22
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


class Record(BaseModel):
    """Base of all records: frozen and strict."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read a record.

        Raises:
            ValueError: it is no JSON, or does not fit; the message is one line that names the first place.
        """
        unambiguous(content)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise ValueError(first_fault(error)) from error

    @classmethod
    def from_fields(cls, fields: Any) -> Self:  # noqa: ANN401 - JSON
        """Make a record from what a JSON file holds.

        Raises:
            ValueError: as `from_json`.
        """
        try:
            return cls.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            raise ValueError(first_fault(error)) from error

    @classmethod
    def read_file(cls, path: Path, largest: int) -> Self:
        """Read a record from a regular file.

        Raises:
            OSError: it cannot be read, is no regular file, or has more than ``largest`` bytes.
            ValueError: as `from_json`.
        """
        return cls.from_json(read_regular(path.parent, path.name, largest))


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they come back from a JSON file, so that what was read equals what was made."""
    made: dict[str, Any] = json.loads(json.dumps(values))
    return made


def unambiguous(content: bytes) -> Any:  # noqa: ANN401 - whatever the JSON holds
    """The content of a JSON file that all programs read alike.

    Raises:
        ValueError: it is no JSON in UTF-8, names an entry twice, or holds NaN, endless nesting or endless numbers, or
            half of a character (as the escape of a lone surrogate).
    """
    if content.count(b",") > _MOST_VALUES:
        raise ValueError(f"the file holds more than {_MOST_VALUES} values")
    try:
        value = json.loads(content.decode(), parse_constant=_no_number, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError("the file is no UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("the file is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"the file is no JSON: {error}") from error
    if _SURROGATE.search(content):  # two of them may be one character, so the text decides
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text holds half of a character") from error
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an entry is named twice")
    return found
