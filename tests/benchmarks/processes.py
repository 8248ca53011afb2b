"""How much sooner measuring ends when processes divide it, and that they come to the same numbers.

    python -m tests.benchmarks.processes MODEL --images IMAGES --processes 1,2 --preset fast

Runs `phard launch N measure` from beginning to end for each N in turn, several times over, so that what else the
machine does meanwhile falls on all of them. Give it idle cores, at least as many as processes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from phard_hub.report.record import Report
from tests.benchmarks.records import RESULTS, write

MODULE = "tests.benchmarks.processes"


def main(
    model: Annotated[str, typer.Argument(help="A folder or a Hub id.")],
    images: Annotated[str, typer.Option(help="Labelled images.")],
    processes: Annotated[
        str, typer.Option(help="How many, separated by commas; the first is what is compared with.")
    ] = "1,2",
    preset: str = "fast",
    seed: int = 0,
    repeats: Annotated[int, typer.Option(help="How often each.")] = 3,
    option: Annotated[
        list[str] | None, typer.Option(help="More for the verb, such as --option=--max-images=500.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = RESULTS,
) -> None:
    """Time measuring, and compare what was measured."""
    counts = [int(count) for count in processes.split(",")]
    verb = ["measure", model, "--images", images, "--preset", preset, "--seed", str(seed), *(option or [])]
    runs = [_timed(count, verb) for _ in range(repeats) for count in counts]
    reports = [run.pop("report") for run in runs]
    first = reports[0]
    times = {
        what: {count: median(run[what] for run in runs if run["processes"] == count) for count in counts}
        for what in ("seconds", "search_seconds", "cpu_seconds")
    }
    content = {
        "model": first.source.model_dump(mode="json"),
        "dataset": first.dataset,
        "preset": preset,
        "seed": seed,
        "options": option or [],
        "environment": first.environment.model_dump(mode="json"),
        "cores": os.cpu_count(),
        "runs": runs,
        "median": times,
        "faster": {
            what: {count: times[what][counts[0]] / times[what][count] for count in counts[1:]}
            for what in ("seconds", "search_seconds")
        },
        "same_numbers": all(_numbers(report) == _numbers(first) for report in reports),
    }
    write(out / f"processes-{Path(model).name}-{preset}-seed{seed}.json", MODULE, content)


def _timed(count: int, verb: list[str]) -> dict[str, Any]:
    """One run: wall time of all and of the search, time of processors, and the report."""
    load, used, started = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", "phard_hub", "launch", str(count), *verb, "--out", str(out)]
        subprocess.run(command, check=True)
        report = Report.read(out)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "processes": count,
        "seconds": time.perf_counter() - started,
        "search_seconds": report.before.distances.seconds,
        "cpu_seconds": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime,
        "load_before": load,
        "report": report,
    }


def _numbers(report: Report) -> dict[str, Any]:
    """All that was measured but the time."""
    return report.before.model_dump(exclude={"distances": {"seconds"}, "smoothed": {"seconds"}})


if __name__ == "__main__":
    typer.run(main)
