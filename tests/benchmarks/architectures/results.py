"""What the command saw, as JSON and as the table of models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phard_hub.report.wording import printable

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "architectures.json"
PAGE = ROOT / "tests" / "benchmarks" / "MODELS.md"
BLOCK = re.compile(r"(<!-- architectures -->\n).*?(<!-- architectures: end -->\n)", re.DOTALL)
SHOWN = ("pull", "audit", "measure", "harden", "push", "reload")
_LONGEST = 110


def renew_page() -> None:
    """Write the table of models anew from the results."""
    table = markdown(json.loads(RESULTS.read_text("utf-8")))
    PAGE.write_text(BLOCK.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", PAGE.read_text("utf-8")), "utf-8")


def markdown(results: Mapping[str, Any]) -> str:
    """The table, one line a model, with seconds in each cell, or the error that a step ended with."""
    rows: Sequence[Mapping[str, Any]] = results["rows"]
    arrived = sum(row["arrived"] for row in rows)
    families = len({row["family"] for row in rows if row["arrived"]})
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    head = ("architecture", "library", "parameters", "image", *SHOWN, "logits differ by")
    lines = [" | ".join(head), "|".join("---:" if k > 1 else "---" for k in range(len(head))), *map(_line, rows)]
    return (
        f"{arrived} of {len(rows)} models of {families} families went the whole way ({versions}). Cells are seconds on "
        "one CPU core.\n\n" + "".join(f"| {line} |\n" if k != 1 else f"|{line}|\n" for k, line in enumerate(lines))
    )


def _line(row: Mapping[str, Any]) -> str:
    parameters = "" if row["parameters"] is None else f"{row['parameters']:,}"
    image = "x".join(map(str, row["image"] or ()))
    difference = "" if row["difference"] is None else f"{row['difference']:.0e}"
    return " | ".join((row["name"], row["library"], parameters, image, *_cells(row["steps"]), difference))


def _cells(steps: Mapping[str, float | str]) -> list[str]:
    """One cell a step; the first that failed says why, whether it has a column or not, and those after it are empty."""
    failure = next((f"{name}: {what}" for name, what in steps.items() if isinstance(what, str)), None)
    cells = [f"{steps[name]:.1f}" for name in SHOWN if isinstance(steps.get(name), float)]
    if failure:
        cells.append(printable(failure, _LONGEST).replace("|", "\\|"))
    return cells + [""] * (len(SHOWN) - len(cells))
