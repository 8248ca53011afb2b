"""How reports are put into words: safe names and numbers that do not contradict themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phard_hub.report.distances import ClassDistances, PairDistance, Rate
    from phard_hub.report.outliers import Outlier
    from phard_hub.report.record import Phase

NOT_FORGOTTEN = (  # where `Hardening.forgotten` is False
    "What makes a model forget a planted backdoor cost more accuracy than is allowed, so nothing of it was kept: one "
    "that was planted may work as before. More training images make this less likely."
)

OUTCOMES = {  # of a rule
    "pass": "PASS",
    "fail": "FAIL",
    "not_evaluated": "NOT EVALUATED",
    "not_applicable": "NOT APPLICABLE",
}

_LONGEST_NAME = 200
"""Characters of a name in a report."""


def printable(text: str, width: int = 60) -> str:
    """One short line without control characters, made from a name that somebody else chose.

    Labels come from a checkpoint's config: line breaks would break tables, escape codes a terminal,
    and control characters XML.
    """
    line = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def no_better_than_chance(accuracy: Rate, classes: int, when: str = "") -> str:
    """That a classifier may be guessing, and the usual reason."""
    return (
        f"The accuracy{when and f' {when}'} is no better than guessing one of {classes} classes ({accuracy}, "
        f"n = {accuracy.n}): labels or preprocessing probably do not match the model."
    )


def sentence(text: str) -> str:
    """The text with one full stop, whatever stood at its end."""
    return text if text.endswith(("…", "?", "!")) else f"{text.rstrip('.')}."


def pair_name(distances: ClassDistances, pair: PairDistance) -> str:
    """The two classes of a pair, such as ``cat -> dog``; a universal trigger starts at ``any class``."""
    source = "any class" if pair.source is None else printable(distances.labels[pair.source], 30)
    return f"{source} -> {printable(distances.labels[pair.target], 30)}"


def outlier_words(distances: ClassDistances, outlier: Outlier) -> str:
    """How much a class stands out, such as ``cat needs 2.7 grey levels of colour, the others 6.4 (median)``."""
    of = f" of {outlier.kind} alone" if outlier.kind else ""
    label = printable(distances.labels[outlier.target], 30)
    return (
        f"{label} needs {outlier.levels:.1f} grey levels{of}, the others {outlier.others:.1f} (median): "
        f"{outlier.times:.1f} times more"
    )


def phase_words(phase: Phase) -> str:
    """What came of a phase, such as ``adversarial: 80 % of the way, 0.4 points of accuracy lost``."""
    parts = [f"{100 * phase.share:.0f} % of the way" if phase.kept else "not kept"]
    if phase.points_lost is not None:
        lost = "gained" if phase.points_lost < 0 else "lost"
        parts.append(f"{abs(phase.points_lost):.1f} points of validation accuracy {lost}")
    if phase.points_at_most is not None:
        parts.append(f"at most {phase.points_at_most:.1f} (95 %, {phase.guard_images} images)")
    return f"{printable(phase.defense)}: {', '.join(parts)}"


def flat(
    fields: Mapping[str, Any], prefix: str = "", *, keep: Callable[[str], bool] = lambda _name: True
) -> Iterator[tuple[str, Any]]:
    """Fields within fields, under names with dots as in experiment files; only those whose own name is kept."""
    for name, value in fields.items():
        if not keep(name):
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.", keep=keep)
        else:
            yield prefix + name, value


def two_numbers(value: float, limit: float, digits: int = 1) -> tuple[str, str]:
    """Both numbers with as few digits as show that they differ: 7.96 and 8.0, never 8.0 and 8.0."""
    while digits < 6 and abs(value - limit) > 1e-6 and f"{value:.{digits}f}" == f"{limit:.{digits}f}":
        digits += 1
    return f"{value:.{digits}f}", f"{limit:.{digits}f}"


def public_name(place: str) -> str:
    """A Hub id as it is, and of a path or a pattern of paths the last part only, because reports are published.

    A name on the disk may hold what no report can: line breaks, escape codes, and bytes that are no UTF-8.
    """
    path = Path(os.path.expanduser(place))  # noqa: PTH111 - which knows every name
    if os.path.exists(path):  # noqa: PTH110
        return printable(path.resolve().name, _LONGEST_NAME)
    return printable(path.name if any(sign in place for sign in "*?[") else place, _LONGEST_NAME)
