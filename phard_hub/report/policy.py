"""The policy: which numbers a model must reach before it may be deployed.

A policy is a flat ``policy.toml``, one line a rule. A rule that is not named keeps its default; a rule
is switched off with ``rule = "off"`` (TOML has no null, and so the line stays visible in the file).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from phard_hub.disk.toml import parse_toml, read_toml
from phard_hub.errors import PolicyError, did_you_mean
from phard_hub.report.base import Record
from phard_hub.report.smoothed import RADII
from phard_hub.report.wording import printable
from phard_hub.settings import fault_of

OFF = "off"
LARGEST_POLICY = 2**14
"""Bytes; one with all rules has 2,000, and a key with dots takes the square of its length to read."""
Severity = Literal["error", "warning", "note"]


def _off_to_none(value: object) -> object:
    """None for the word that switches a rule off."""
    return None if value == OFF else value


def _unsplit(value: object) -> object:
    """The key ``0.25`` of a table, which TOML reads as a table ``0`` with a key ``25``."""
    whole = value.get("0") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(whole, dict):
        return value
    return {key: limit for key, limit in value.items() if key != "0"} | {
        f"0.{key}": each for key, each in whole.items()
    }


_Off = BeforeValidator(_off_to_none)
# strict: "5" and true are mistakes in a policy, not numbers
Points = Annotated[Annotated[float, Field(strict=True, ge=0, le=100)] | None, _Off]
GreyLevels = Annotated[Annotated[float, Field(strict=True, ge=0, le=255)] | None, _Off]
Share = Annotated[Annotated[float, Field(strict=True, ge=0, le=1)] | None, _Off]
Relative = Annotated[Annotated[float, Field(strict=True, ge=0)] | None, _Off]
Times = Annotated[Annotated[float, Field(strict=True, ge=1)] | None, _Off]
Level = Annotated[str, Field(pattern=r"\A(5|10|20|30)\z")]
AtLevels = Annotated[dict[Level, Annotated[float, Field(strict=True, ge=0, le=1)]] | None, _Off]
Radius = Annotated[str, Field(pattern=rf"\A({'|'.join(re.escape(f'{radius:g}') for radius in RADII)})\z")]
WithinRadii = Annotated[
    dict[Radius, Annotated[float, Field(strict=True, ge=0, le=1)]] | None, BeforeValidator(_unsplit), _Off
]
Count = Annotated[Annotated[int, Field(strict=True, ge=1, le=2**53)] | None, _Off]
Severities = Annotated[tuple[Severity, ...] | None, _Off]
KeyFile = Annotated[Annotated[str, Field(strict=True, min_length=1)] | None, _Off]

_HEADER = """\
# Limits that a model has to keep before it may be deployed.
# Switch a rule off with:  rule = "off"
# A rule that cannot be evaluated refuses, too.
"""


class Policy(Record, strict=False):  # TOML has lists where tuples are meant; each limit is strict itself
    """Limits and rules of the gate; None is a rule that is switched off.

    Units: points are points of percent (0-100), shares lie in [0, 1], and distances are grey levels
    (0-255), root mean square over the values of an image.
    """

    max_accuracy_loss: Points = Field(
        default=1.0, description="Accuracy that hardening may cost, in points of percent."
    )
    max_robust_accuracy_loss: Points = Field(
        default=1.0, description="Accuracy under attack that hardening may cost, in points of percent."
    )
    min_accuracy: Share = Field(default=None, description="Share of test images that must be classified correctly.")
    min_robust_accuracy: Share = Field(
        default=None, description="Share of test images that must be classified correctly under attack."
    )
    min_mean_distance: GreyLevels = Field(
        default=8.0, description="Mean class distance over the pairs reached, in grey levels (0-255, RMS)."
    )
    min_smallest_distance: GreyLevels = Field(
        default=4.0,
        description="Smallest class distance of all pairs and universal triggers, in grey levels (0-255, RMS).",
    )
    min_distance_increase: Relative = Field(
        default=0.5,
        description="Mean relative increase of the distance by hardening, pair by pair; 0.5 is +50 %.",
    )
    min_pairs_measured: Count = Field(
        default=10,
        description="Number of class pairs that must have been measured (all of them where there are fewer).",
    )
    min_pairs_reached: Share = Field(
        default=0.5,
        description="Share of the measured pairs that the search must have reached; the others are in no mean.",
    )
    max_attack_success: Share = Field(
        default=0.05, description="Success rate of each known trigger, as a share of the images."
    )
    max_outlier: Times = Field(
        default=1.5,
        description="How many times more the other classes (median) may need than the one that universal triggers "
        "reach most easily, by any kind of change.",
    )
    max_universal_success_at: AtLevels = Field(
        default=None,
        description="Success that the best universal trigger of any class may have at 5, 10, 20 or 30 grey levels, "
        "such as { 20 = 0.5 }.",
    )
    min_certified_accuracy: WithinRadii = Field(
        default=None,
        description="Share of test images that no change of an L2 norm of 0.063, 0.0895, 0.25 or 0.5 may turn, where "
        "votes under noise answer (`--certify`), such as { 0.25 = 0.4 }.",
    )
    forbid_findings: Severities = Field(
        default=("error",), description="Severities of audit findings that refuse: error, warning, note."
    )
    require_signature: KeyFile = Field(
        default=None, description="Public key (a PEM file, beside this policy) that must have signed the release."
    )

    def to_toml(self) -> str:
        """This policy as a commented ``policy.toml``; reading it gives an equal policy."""
        return _HEADER + "".join(
            f"\n# {field.description}\n{name} = {_toml(getattr(self, name))}\n"
            for name, field in type(self).model_fields.items()
        )

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read a ``policy.toml``; the path of a key in it begins where the policy lies.

        Raises:
            PolicyError: the file is missing or no TOML, a rule is unknown, or a limit is out of range.
        """
        advice = "Write one with `phard policy > policy.toml`."
        policy = cls._of(read_toml(path, LARGEST_POLICY, error=PolicyError, advice=advice), str(path))
        if policy.require_signature is None:
            return policy
        return policy.model_copy(update={"require_signature": str(path.parent / policy.require_signature)})

    @classmethod
    def parse(cls, text: str, *, name: str = "policy.toml") -> Policy:
        """Make a policy from the text of a ``policy.toml``; ``name`` is used in errors.

        Raises:
            PolicyError: the text is no TOML, a rule is unknown, or a limit is out of range.
        """
        return cls._of(parse_toml(text, name, error=PolicyError), name)

    @classmethod
    def _of(cls, values: dict[str, Any], name: str) -> Policy:
        _refuse_unknown(values, name)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            fault = fault_of(error)
            rule = re.split(r"[.[]", fault.place)[0]
            message = fault.said.removeprefix("Input ").replace("valid tuple", "list of severities")
            raise PolicyError(
                f"{name}: {rule} {message}, but is {_shown(fault.value)}.",
                advice=f'{Policy.model_fields[rule].description} Or switch it off: {rule} = "{OFF}".',
            ) from error


POLICIES = {
    "hardened": Policy(),
    "deploy": Policy(
        min_mean_distance=None,
        min_smallest_distance=None,
        min_distance_increase=None,
        min_pairs_measured=None,
        min_pairs_reached=None,
    ),
}
"""What hardening promises; and what is asked of any model: no class stands out, no known trigger works, no finding."""


def _refuse_unknown(values: dict[str, Any], name: str) -> None:
    """Name the nearest rule to a misspelt one: ignoring it would switch a check off in silence."""
    for key in values.keys() - Policy.model_fields.keys():
        advice = did_you_mean(key, Policy.model_fields, f"The rules are: {', '.join(Policy.model_fields)}.")
        raise PolicyError(f"{name}: there is no rule {_shown(key)}.", advice=advice)


def _shown(value: object) -> str:
    """A value of a policy in an error, however long it is."""
    try:
        return printable(repr(value))
    except (ValueError, RecursionError):  # Python does not write numbers of thousands of digits
        return "far too large"


def _toml(value: float | str | tuple[str, ...] | dict[str, float] | None) -> str:
    """A limit as a TOML value; JSON's numbers, strings and lists are TOML's, too."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {json.dumps(limit)}' for key, limit in value.items())} }}"
    return json.dumps(OFF if value is None else value)
