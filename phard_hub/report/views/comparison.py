"""Views of a comparison: a table of its cells, a summary of its defenses, and a picture; all from the trials alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from phard_hub.report.trial import Judgement, Trial
from phard_hub.report.views.plots import AttackReach, message
from phard_hub.report.wording import printable

Column = tuple[str, float]
"""A defense, and the share of the training images that it had."""

_HATCH: dict[str, Any] = {"facecolor": "white", "edgecolor": "#9aa0a6", "hatch": "////", "linewidth": 0}


def as_markdown(trials: Sequence[Trial]) -> str:
    """What the defenses come to, what did not work, and all cells, as tables for people."""
    parts = [headlines(trials), "## Cells", _cells(trials)]
    natural = [trial for trial in trials if trial.after is not None and trial.after.natural]
    if natural:
        parts += ["## Natural vulnerability", _NATURAL, _natural(natural)]
    return "\n\n".join(parts) + "\n"


def headlines(trials: Sequence[Trial]) -> str:
    """The part of `as_markdown` that fits on a screen."""
    parts = ["# Comparison", _caption(trials), "## Defenses", _summary(trials)]
    troubles = [trial for trial in trials if trial.status != "done"]
    if troubles:
        parts += ["## Cells without an answer", _table(("cell", "why"), [(str(t.cell), t.problem) for t in troubles])]
    return "\n\n".join(parts)


_NATURAL = (
    "The best trigger and target of each attack family on models without a planted backdoor, chosen on one half of "
    "the test images and judged on the other; in brackets, how many of them are taken for that class untouched."
)


def _caption(trials: Sequence[Trial]) -> str:
    counts = {status: sum(trial.status == status for trial in trials) for status in ("done", "no backdoor", "failed")}
    words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    sets = ", ".join(sorted({trial.dataset for trial in trials if trial.dataset}))
    return (
        f"{len(trials)} cells: {words}. Data: {sets or 'none'}. Success is that of the trigger on images of other "
        "classes, beside that of the same trigger on the clean original; rates have 95 % intervals. Accuracy and "
        "distances are counted from the honest model, and from the planted one beside it. The size of a trigger is in "
        "grey levels (RMS). DER is the defense effectiveness rating."
    )


def _summary(trials: Sequence[Trial]) -> str:
    """One line for each model, defense and share: means over attacks and seeds, and the worst.

    Models without a planted backdoor are in a column of their own.
    """
    rows = []
    for model in dict.fromkeys(trial.cell.model for trial in trials):
        for column in columns(trials):
            group = [trial for trial in trials if trial.cell.model == model and _column(trial) == column]
            if group:
                rows.append((model, *_named(column), *_means(group)))
    head = (
        *("model", "defense", "images", "cells", "success left, mean", "worst", "recovered, mean", "DER, mean"),
        *(
            "re-activated by fine-tuning, mean",
            "by a perturbation, mean",
            "accuracy lost against the honest model, mean",
            "worst",
            "against the planted model, mean",
            "without a backdoor",
            "distances since the honest model, mean",
            "since the planted model",
        ),
    )
    return _table(head, rows)


def _means(group: Sequence[Trial]) -> tuple[str, ...]:
    done = [trial for trial in group if trial.status == "done"]
    attacked = [trial for trial in done if trial.outcome is not None]
    spared = [trial for trial in done if trial.outcome is None]
    lost, cost = (
        [100 * value for trial in some if (value := trial.accuracy_lost()) is not None] for some in (attacked, spared)
    )
    since = [100 * value for t in attacked if (value := t.accuracy_lost(against_planted=True)) is not None]
    larger, larger_since = (
        [100 * value for t in done if (value := t.distance_increase(against_planted=planted)) is not None]
        for planted in (False, True)
    )
    left = [100 * value for trial in attacked if (value := success_left(trial)) is not None]
    recovered = [100 * trial.after.evaluation.attacks[0].recovered.value for trial in attacked if trial.after]
    ratings = [100 * trial.effectiveness.value for trial in attacked if trial.effectiveness]
    reactivated = [100 * value for trial in attacked if (value := reactivated_by_training(trial)) is not None]
    moved = [100 * t.after.perturbed.success.value for t in attacked if t.after and t.after.perturbed]
    return (
        f"{len(done)} of {len(group)}",
        *(
            _number(left),
            _number(left, "%", max),
            _number(recovered),
            _number(ratings),
            _number(reactivated),
            _number(moved),
        ),
        *(_number(lost, "points"), _number(lost, "points", max), _number(since, "points"), _number(cost, "points")),
        *(_number(larger), _number(larger_since)),
    )


def _number(values: Sequence[float], unit: str = "%", of: Callable[[Sequence[float]], float] = fmean) -> str:
    return f"{of(values):.1f} {unit}" if values else "-"


def _cells(trials: Sequence[Trial]) -> str:
    head = (
        *(
            "model",
            "attack",
            "size",
            "defense",
            "images",
            "seed",
            "accuracy before",
            "after",
            "success before",
            "after",
        ),
        *(
            "original",
            "recovered",
            "DER",
            "robust accuracy before",
            "after",
            "re-activated by fine-tuning",
            "honest twin",
        ),
        *("by a perturbation", "honest twin", "rank of the target before", "after", "minutes"),
    )
    return _table(head, [_cell(trial) for trial in trials])


def _cell(trial: Trial) -> tuple[str, ...]:
    """One line; a cell without an answer says so where its numbers would be."""
    cell, before, after, original = trial.cell, trial.before, trial.after, trial.original
    size = f"{trial.size.rms:.1f}" if trial.size else "-"
    place = (cell.model, cell.attack, size, *_named(_column(trial)), str(cell.seed))
    if trial.status != "done" or before is None or after is None or original is None:
        return (*place, trial.status, *["-"] * 14, _minutes(trial))
    attacked, twin = bool(before.evaluation.attacks), trial.twin or Judgement(evaluation=original.evaluation)
    robust = [judged.evaluation.robust_accuracy for judged in (before, after)]
    ranks = [
        judged.target_rank(trial.target or 0) if attacked and judged.distances else None for judged in (before, after)
    ]
    return (
        *place,
        *(str(judged.evaluation.accuracy) for judged in (before, after)),
        *(_said(judged.evaluation.attacks[0].success if attacked else None) for judged in (before, after, original)),
        _said(after.evaluation.attacks[0].recovered if attacked else None),
        _said(trial.effectiveness),
        *map(_said, robust),
        *(", ".join(map(str, judged.relearned)) or "-" for judged in (after, twin)),
        *(_said(judged.perturbed and judged.perturbed.success) for judged in (after, twin)),
        *map(_said, ranks),
        _minutes(trial),
    )


def _said(value: object) -> str:
    return "-" if value is None else str(value)


def _minutes(trial: Trial) -> str:
    """Without planting, which is done once for all defenses."""
    spent = trial.seconds.get("hardening", 0.0) + trial.seconds.get("judging", 0.0)
    return f"{spent / 60:.1f}"


def _natural(trials: Sequence[Trial]) -> str:
    rows = []
    for trial in trials:
        assert trial.before is not None
        assert trial.after is not None
        later = {found.name: found for found in trial.after.natural}
        for found in trial.before.natural:
            cells = [f"{each.success} ({each.untouched})" for each in (found, later[found.name])]
            rows.append((trial.cell.model, *_named(_column(trial)), str(trial.cell.seed), found.name, *cells))
    return _table(("model", "defense", "images", "seed", "family", "before", "after"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; what others named cannot break it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(printable(cell, 300).replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def _column(trial: Trial) -> Column:
    return trial.cell.defense, trial.cell.data_share


def columns(trials: Sequence[Trial]) -> list[Column]:
    """Defenses with their shares, in the order of the experiment."""
    return list(dict.fromkeys(_column(trial) for trial in trials))


def _named(column: Column) -> tuple[str, str]:
    return column[0], f"{100 * column[1]:g} %"


def success_left(trial: Trial) -> float | None:
    """Attack success after the defense."""
    return trial.outcome[1].value if trial.outcome else None


def reactivated_by_training(trial: Trial) -> float | None:
    """Attack success after the longest fine-tuning on poisoned images."""
    return trial.after.relearned[-1].mean if trial.after and trial.after.relearned else None


def rating(trial: Trial) -> float | None:
    """The defense effectiveness rating."""
    return trial.effectiveness.value if trial.effectiveness else None


def _lost(trial: Trial) -> float | None:
    return trial.accuracy_lost()


_PANELS: tuple[tuple[str, Callable[[Trial], float | None], str, tuple[float, float]], ...] = (
    ("attack success left (%)", success_left, "magma_r", (0, 100)),
    ("re-activated by fine-tuning (%)", reactivated_by_training, "magma_r", (0, 100)),
    ("accuracy lost (points)", _lost, "magma_r", (0, 5)),
    ("defense effectiveness (%)", rating, "viridis", (50, 100)),
)


def picture(trials: Sequence[Trial]) -> Figure:
    """Attacks by defenses: success left, success after re-activation, accuracy lost and rating, means over seeds.

    Hatched cells have no answer in any seed: they failed, or the backdoor did not work.
    """
    if not trials:
        return message("No cell was run.")
    models = list(dict.fromkeys(trial.cell.model for trial in trials))
    rows = list(dict.fromkeys((trial.cell.model, trial.cell.attack) for trial in trials))
    across = columns(trials)
    panels = [panel for panel in _PANELS if any(panel[1](trial) is not None for trial in trials)]
    if not panels:
        return message("No cell has an answer.")
    names = [attack if len(models) == 1 else f"{model}: {attack}" for model, attack in rows]
    width, height = 1.0 + 0.62 * len(across), 0.34 * len(rows)
    left = 0.09 * max(len(printable(name, 28)) for name in names)
    figure = Figure(figsize=(left + width * len(panels) + 1, max(2.4, height + 2.2)), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, value, colours, limits) in zip(axes, panels, strict=True):
        _panel(axis, _grid(trials, rows, across, value), colours, limits)
        axis.set_title(title, fontsize=9, loc="left")
        labels = [printable(name if share == 1 else f"{name}, {100 * share:g} %", 28) for name, share in across]
        axis.set_xticks(range(len(across)), labels, rotation=60, ha="right", fontsize=8, parse_math=False)
        axis.set_yticks([])
    axes[0].set_yticks(range(len(rows)), [printable(name, 28) for name in names], fontsize=8, parse_math=False)
    if any(trial.status != "done" for trial in trials):
        label = "no answer: failed, or no backdoor"
        figure.legend(handles=[Patch(**_HATCH, label=label)], loc="outside lower left", frameon=False, fontsize=8)
    seeds = len({trial.cell.seed for trial in trials})
    figure.suptitle(f"Attacks against defenses, {f'means of {seeds} seeds' if seeds > 1 else 'one seed'}", fontsize=11)
    return figure


def _grid(
    trials: Sequence[Trial],
    rows: Sequence[tuple[str, str]],
    across: Sequence[Column],
    value: Callable[[Trial], float | None],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Means in percent; NaN where nothing was measured and minus infinity where no cell has an answer."""
    grid = np.full((len(rows), len(across)), np.nan)
    for row, attack in enumerate(rows):
        for place, column in enumerate(across):
            cells = [t for t in trials if (t.cell.model, t.cell.attack) == attack and _column(t) == column]
            done = [trial for trial in cells if trial.status == "done"]
            values = [100 * number for trial in done if (number := value(trial)) is not None]
            if values:
                grid[row, place] = fmean(values)
            elif cells and not done:
                grid[row, place] = -np.inf
    return grid


def _panel(axis: Axes, grid: np.ndarray[Any, np.dtype[np.float64]], colours: str, limits: tuple[float, float]) -> None:
    """One map with its numbers."""
    shown = np.ma.masked_invalid(grid)
    axis.imshow(shown, cmap=colormaps[colours], vmin=limits[0], vmax=limits[1], interpolation="nearest", aspect="auto")
    axis.set_facecolor("#f1f3f4")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    for (row, column), number in np.ndenumerate(grid):
        if np.isneginf(number):
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **_HATCH))
        elif not np.isnan(number):
            share = (number - limits[0]) / (limits[1] - limits[0])
            dark = share > 0.55 if colours.endswith("_r") else share < 0.55
            colour = "white" if dark else "black"
            axis.text(column, row, f"{number:.1f}", ha="center", va="center", fontsize=7, color=colour)


def reaches(trials: Sequence[Trial]) -> list[AttackReach]:
    """The size of each attack and the distances of its planted model, for trials whose distances were measured."""
    return [
        AttackReach(
            name=f"{trial.cell.attack}, {trial.cell.defense}"
            + (f" {100 * trial.cell.data_share:g} %" if trial.cell.data_share < 1 else "")
            + (f", seed {trial.cell.seed}" if trial.cell.seed else ""),
            size=trial.size.rms,
            target=trial.target,
            before=trial.before.distances,
            after=trial.after.distances,
        )
        for trial in trials
        if trial.size is not None
        and trial.target is not None
        and trial.before is not None
        and trial.before.distances is not None
        and trial.after is not None
        and trial.after.distances is not None
        and trial.hardening is not None
    ]
