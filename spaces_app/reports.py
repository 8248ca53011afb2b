"""The tabs Distances and Reports: reading reports, the closest pairs, the gate with limits to move. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from phard_hub import Policy, Report, gate, published
from phard_hub.errors import InputError, ReportError
from phard_hub.report import GREY_LEVELS, POLICIES, Verdict, pair_name, policy_for
from spaces_app.examples import Example

LIMITS = {
    "min_mean_distance": ("Mean class distance, at least (grey levels)", 0.0, 40.0, 0.5),
    "min_smallest_distance": ("Smallest class distance, at least (grey levels)", 0.0, 30.0, 0.5),
    "min_distance_increase": ("Increase of the distance, at least (1 is +100 %)", 0.0, 3.0, 0.05),
    "max_accuracy_loss": ("Accuracy that hardening may cost, at most (points)", 0.0, 20.0, 0.1),
    "max_attack_success": ("Success of each known trigger, at most (share)", 0.0, 1.0, 0.01),
    "max_outlier": ("What the other classes need, at most so many times the easiest one", 1.0, 5.0, 0.1),
    "max_universal_success_at": ("Success of universal triggers of a size, at most (share)", 0.0, 1.0, 0.05),
}
"""The limits that can be moved: label, smallest, largest and step of each; the other rules keep their defaults."""
SUCCESS_AT = "max_universal_success_at"
"""The limit that needs a size as well."""
SIZES = {"off": None} | {f"at {level:g} grey levels": f"{level:g}" for level in GREY_LEVELS}
CHOSEN_POLICIES = {
    "the one that fits the report": None,
    "of a hardened model": "hardened",
    "of any model": "deploy",
}
"""Policies by what visitors see; the first one is chosen by what the report is about."""
LARGEST_REPORT = 16 * 2**20
SHIPPED = {
    "Digits with a planted warp, hardened": "backdoored",
    "Digits without a backdoor, only measured": "honest",
}


def shipped(example: Example, name: str) -> Report:
    """One of the reports that come with the page.

    Raises:
        InputError: there is none of this name.
    """
    if name not in SHIPPED:
        raise InputError(f"There is no shipped report {name!r}.", advice=f"There are: {', '.join(SHIPPED)}.")
    return example.reports[SHIPPED[name]]


def read_file(path: Path) -> Report:
    """The report that a visitor brings.

    Raises:
        ReportError: it is none, or too large.
    """
    if path.stat().st_size > LARGEST_REPORT:
        problem = (
            f"The file has {path.stat().st_size / 2**20:.0f} MiB; at most {LARGEST_REPORT // 2**20} are read here."
        )
        raise ReportError(problem, advice="Give a phard_report.json.")
    try:
        return Report.read(path)
    except ReportError as error:
        raise ReportError(error.problem.replace(str(path), "Your file"), advice=error.advice) from error


def read_hub(name: str, policy: Policy | None = None) -> tuple[Report, Any]:
    """The report of a release on the Hub, and what the Hub says of the files beside it.

    Raises:
        PhardError: there is no such repository, it has no report, or the Hub did not answer.
    """
    if not name.strip():
        raise InputError("There is no id of a release.", advice="Give one such as org/model or org/model@revision.")
    return published(name.strip(), policy or Policy())


def judged(
    report: Report,
    limits: Mapping[str, Any],
    deployed: Any = None,  # noqa: ANN401 - of the library
    policy: str | None = None,
) -> Verdict:
    """What a policy says with these limits in it.

    Args:
        report: what is judged.
        limits: of the policy by their names; they are judged even where the policy leaves the rule out.
        deployed: what the Hub says of the files beside the report.
        policy: a name of `POLICIES`; None for the one that fits the report.

    Raises:
        InputError: a limit is unknown or out of range, or there is no such policy.
    """
    if unknown := limits.keys() - Policy.model_fields.keys():
        raise InputError(f"There is no limit {sorted(unknown)[0]!r}.", advice=f"There are: {', '.join(LIMITS)}.")
    try:
        chosen = Policy.model_validate({**_policy(report, policy).model_dump(), **limits})
    except ValueError as error:
        raise InputError("A limit is no number in its range.", advice="See `phard policy`.") from error
    return gate(report, chosen, deployed=deployed)


def _policy(report: Report, name: str | None) -> Policy:
    if name is None:
        return policy_for(report)
    if name not in POLICIES:
        raise InputError(f"There is no policy {name!r}.", advice=f"There are: {', '.join(POLICIES)}.")
    return POLICIES[name]


def moved(report: Report, policy: str | None, values: Sequence[float], size: str | None) -> dict[str, Any]:
    """The limits that sliders say, without those of rules that the policy leaves out.

    Args:
        report: what is judged.
        policy: a name of `POLICIES`; None for the one that fits the report.
        values: of the sliders, in the order of `LIMITS`.
        size: of the universal triggers that are limited, such as "20" grey levels; None for no such limit.
    """
    limits: dict[str, Any] = dict(zip(LIMITS, values, strict=True))
    success = limits.pop(SUCCESS_AT)
    on = _policy(report, policy)
    kept = {name: float(value) for name, value in limits.items() if getattr(on, name) is not None}
    return kept if size is None else {**kept, SUCCESS_AT: {size: float(success)}}


def closest(report: Report, most: int = 200) -> pd.DataFrame:
    """The pairs of classes that are turned most easily, the universal triggers among them, before and after."""
    before, after = report.before.distances, report.after.distances if report.after else None
    later = {(pair.source, pair.target): pair.rms for pair in (after.pairs + after.universal if after else ())}
    rows = [
        (pair_name(before, pair), pair.rms, later.get((pair.source, pair.target)), pair.success.value)
        for pair in sorted(before.pairs + before.universal, key=lambda pair: (pair.rms is None, pair.rms))
    ]
    columns = ["pair", "before", "after", "success before"]
    return pd.DataFrame(rows[:most], columns=columns).round({"before": 2, "after": 2, "success before": 3})
