"""Send all models of the table on their way, write what was seen, and renew the table of models.

    python -m tests.benchmarks.architectures --out tests/benchmarks/results/architectures.json

It starts a Hub on loopback, and the libraries talk to nobody else. Errors are results, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.benchmarks.architectures.results import RESULTS, ROOT, renew_page
from tests.hub_server import Hub
from tests.loopback.environment import client_environment

PACKAGES = ("torch", "transformers", "timm", "huggingface-hub")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = RESULTS,
    only: Annotated[list[str] | None, typer.Option(help="Only architectures with this in their name.")] = None,
) -> None:
    """Let each model go the whole way, as far as it gets."""
    hub = Hub()
    hub.start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # before anything imports torch or the Hub's libraries
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ.update(client_environment(hub.endpoint, f"{folder}/hf"))
        hub.login(user="me")
        rows = travel_all(Path(folder), only)
    write(out, rows)
    if out.resolve() == RESULTS:
        renew_page()


def travel_all(folder: Path, only: list[str] | None) -> list[dict[str, Any]]:
    """One row a model, told as they come."""
    from tests.benchmarks.architectures.journey import travel, write_digits
    from tests.benchmarks.architectures.table import ARCHITECTURES

    digits = write_digits(folder / "digits.parquet")
    rows = []
    for architecture in ARCHITECTURES:
        if not only or any(word.casefold() in architecture.name.casefold() for word in only):
            row = travel(architecture, digits, folder / "releases")
            sys.stderr.write(f"{row.name}: {row.steps} {row.difference}\n")
            rows.append({**asdict(row), "arrived": row.arrived})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows beside what is needed to see them again."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    content = {
        "command": "python -m tests.benchmarks.architectures",
        "commit": commit.stdout.strip(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in PACKAGES},
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    app()
