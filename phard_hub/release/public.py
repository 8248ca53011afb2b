"""What of a report may be published: everything but where things lie on the machine that made it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from phard_hub.hub.names import is_commit, is_repo_id, split_dataset
from phard_hub.report.record import TESTED_ON, Report


def public(report: Report) -> Report:
    """The report with the last part of each local path only, and ``~`` for the user's home.

    Paths are those of the model and of the data sets, wherever the report mentions them. What comes from the Hub
    keeps its name, and a report without paths stays what it is.
    """
    source = report.source
    names = [name for name in report.dataset.split(TESTED_ON) if not is_hub_data(name)]
    if not (is_commit(source.commit) and is_repo_id(source.repo)):
        names.append(source.repo)
    hidden = {name: last_part(name) for name in names if "/" in name.rstrip("/") or name.startswith("~")}
    home = str(Path.home())
    if home.count("/") > 1 or home == "/root":  # not "/", which is in every path
        hidden[home] = "~"
    if not hidden:
        return report
    pattern = re.compile("|".join(re.escape(name) for name in sorted(hidden, key=len, reverse=True)))
    fields = _replaced(report.model_dump(mode="json"), pattern, hidden)
    return Report.from_fields(fields)


def is_hub_data(name: str) -> bool:
    """Whether this is the name of a data set on the Hub, perhaps with ``:config`` and ``@revision``."""
    return split_dataset(name) is not None


def last_part(path: str) -> str:
    """The name of a file or folder without where it lies."""
    return Path(path).name or "local"


def _replaced(value: Any, pattern: re.Pattern[str], names: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    """The same value with other names in all its text."""
    if isinstance(value, dict):
        return {_replaced(key, pattern, names): _replaced(inner, pattern, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, pattern, names) for inner in value]
    return pattern.sub(lambda found: names[found[0]], value) if isinstance(value, str) else value
