"""Attacks x defenses x seeds x models, cell by cell, in as many processes as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from phard_hub.errors import ExperimentError, InterruptedRunError, OutputError
from phard_hub.job import Progress, silent
from phard_hub.report.trial import Trial
from phard_hub.trials.cell import OpenModel, cell_file, failed_trial, keep, pulled, read_trial, run_trial
from phard_hub.trials.experiment import Plan
from phard_hub.trials.workers import Died, in_processes


def compare(
    plans: Sequence[Plan],
    out: Path,
    *,
    workers: int = 1,
    retry_failed: bool = False,
    open_model: OpenModel = pulled,
    progress: Progress = silent,
) -> tuple[Trial, ...]:
    """Run all cells that have no file yet, and read those that have one.

    Args:
        plans: of the cells; see `read_experiment`.
        out: folder of the comparison; several commands may work on it at once.
        workers: processes, of one thread each.
        retry_failed: run cells that failed again.
        open_model: what makes a model of its name.
        progress: called when a cell is done.

    Returns:
        The trials, in the order of the plans.

    Raises:
        ExperimentError: a cell that is there was made with other settings.
        InterruptedRunError: the user stopped it; the same call continues.
        OutputError: the folder cannot be written.
        ReportError: a file of a cell is broken.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write {out}: {error.strerror}.", advice="Choose another folder.") from error
    found = {plan.cell: trial for plan in plans if (trial := _done(plan, out, retry_failed)) is not None}
    left = [plan for plan in plans if plan.cell not in found]
    progress("cells", len(found), len(plans))
    task = partial(_on_one_thread, out=out.absolute(), open_model=open_model)
    try:
        for plan, result in in_processes(task, left, workers):
            if isinstance(result, Died):
                result = failed_trial(plan, str(result))
                keep(result, cell_file(plan, out))
            found[plan.cell] = result
            progress("cells", len(found), len(plans))
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"Stopped with {len(found)} of {len(plans)} cells done.", advice="Run the same command to continue."
        ) from error
    return tuple(found[plan.cell] for plan in plans)


def _on_one_thread(plan: Plan, out: Path, open_model: OpenModel) -> Trial:
    """In a process of its own: two busy threads on two busy cores are many times slower than one."""
    torch.set_num_threads(1)
    return run_trial(plan, out, open_model)


def _done(plan: Plan, out: Path, retry_failed: bool) -> Trial | None:
    """The trial of this cell, if there is one that is to be kept."""
    path = cell_file(plan, out)
    if not path.exists():
        return None
    trial = read_trial(path)
    if trial.cell != plan.cell:
        raise ExperimentError(
            f"{path} is the trial of another cell: {trial.cell}.", advice="Remove it, to run this one."
        )
    if retry_failed and trial.status == "failed":
        path.unlink()
        return None
    if trial.config != plan.config:
        names = [name for name, value in plan.config.items() if trial.config.get(name) != value]
        raise ExperimentError(
            f"{path} was made with other settings: {', '.join(names)}.",
            advice="Give another --out, another name to what you changed, or remove the file.",
        )
    return trial
