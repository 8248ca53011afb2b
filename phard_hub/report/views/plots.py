"""Plots of a report: distance maps, training curves and a gallery of triggers.

Figures are made without pyplot, so nothing here touches a global state or needs a display. Colours are
readable for colour-blind people and in grey print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from phard_hub.report.distances import GREY_LEVELS, ClassDistances, PairDistance
from phard_hub.report.outliers import outliers
from phard_hub.report.record import Report, TrainingPoint
from phard_hub.report.wording import printable

Array = NDArray[np.floating[Any]]

_COLOURS = colormaps["viridis"]
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#5f6368"  # Okabe and Ito
_EMPTY = "#f1f3f4"
_UNREACHED: dict[str, Any] = {"facecolor": "white", "edgecolor": "#9aa0a6", "hatch": "////", "linewidth": 0}
_WRITTEN_VALUES = 12
_NAMED_CLASSES = 60
STANDS_OUT = 1.5
"""A class that the others need so many times more than is framed."""


@dataclass(frozen=True, eq=False)
class GalleryRow:
    """One image and the same image with a trigger: arrays ``(H, W, C)`` in [0, 1]."""

    caption: str
    image: Array
    stamped: Array


def distance_maps(report: Report) -> Figure:
    """Heat maps of all class distances, before and after hardening, on one scale.

    Rows are source classes, with universal triggers as a last row, and columns are target classes; the
    unit is grey levels (0-255) RMS. Hatched pairs were measured but not reached by the search, and pale
    ones not measured.
    """
    maps = [("Before hardening", report.before.distances)]
    if report.after is not None:
        maps.append(("After hardening", report.after.distances))
    top = max((pair.rms or 0.0 for _, found in maps for pair in found.pairs + found.universal), default=0.0)
    scale = ScalarMappable(Normalize(0, top or 1.0), _COLOURS)
    side = min(max(3.8, 0.26 * len(report.before.distances.classes) + 1.6), 12.0)
    figure = Figure(figsize=(max(side * len(maps) + 1.0, 6.0), side + 1.6), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for axis, (title, distances) in zip(axes, maps, strict=True):
        _draw_map(axis, distances, scale)
        axis.set_title(f"{title}\n{_map_subtitle(distances)}", fontsize=10, loc="left")
    figure.colorbar(scale, ax=list(axes), label="class distance (grey levels, RMS)", shrink=0.8, pad=0.02)
    figure.suptitle("Size of the change that turns one class into another", fontsize=12, fontweight="bold")
    _legend(figure, [found for _, found in maps])
    return figure


def _map_subtitle(distances: ClassDistances) -> str:
    """Mean over the pairs reached, and how many these are."""
    count = f"{len(distances.reached)} of {len(distances.pairs)} pairs reached"
    return count if distances.mean_rms is None else f"mean {distances.mean_rms:.1f}, {count}"


def _draw_map(axis: Axes, distances: ClassDistances, scale: ScalarMappable) -> None:
    """One heat map with its marks and names."""
    place = {k: number for number, k in enumerate(distances.classes)}
    classes = len(place)
    rows = classes + bool(distances.universal)
    values = np.full((rows, classes), np.nan)
    for pair in distances.pairs + distances.universal:
        values[_row(pair, place), place[pair.target]] = math.nan if pair.rms is None else pair.rms
    axis.imshow(
        np.ma.masked_invalid(values), cmap=scale.cmap, vmin=0, vmax=scale.get_clim()[1], interpolation="nearest"
    )
    axis.set_facecolor(_EMPTY)
    for pair in distances.pairs + distances.universal:
        if not pair.reached:
            _hatch(axis, place[pair.target], _row(pair, place))
    if rows > classes:
        axis.axhline(classes - 0.5, color="white", linewidth=3)
    for outlier in outliers(distances):
        if not outlier.kind and outlier.times > STANDS_OUT:
            place_of = (place[outlier.target] - 0.5, classes - 0.5)
            axis.add_patch(Rectangle(place_of, 1, 1, fill=False, edgecolor=_ORANGE, linewidth=2.5))
    if classes <= _WRITTEN_VALUES:
        _write_values(axis, values, scale)
    _name_axes(axis, distances)


def _row(pair: PairDistance, place: Mapping[int, int]) -> int:
    """The row of a pair: that of its source class, or the last row for a universal trigger."""
    return len(place) if pair.source is None else place[pair.source]


def _hatch(axis: Axes, column: int, row: int) -> None:
    """Mark a pair that has no distance."""
    axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **_UNREACHED))


def _write_values(axis: Axes, values: Array, scale: ScalarMappable) -> None:
    """Write each distance into its cell, in whichever of black and white can be read there."""
    for (row, column), value in np.ndenumerate(values):
        if not math.isnan(value):
            red, green, blue, _ = scale.to_rgba(value)  # type: ignore[arg-type]  # a number is fine
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{value:.1f}" if value < 100 else f"{value:.0f}"
            size = 9 if values.shape[1] <= 8 else 7
            axis.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")


def _name_axes(axis: Axes, distances: ClassDistances) -> None:
    """Write class names at the axes, as long as there is room for them."""
    classes = len(distances.classes)
    axis.set_xlabel("target class")
    axis.set_ylabel("source class")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    if classes > _NAMED_CLASSES:
        return
    names = [printable(distances.labels[k], 16) for k in distances.classes]
    size = 9 if classes <= _WRITTEN_VALUES else max(5, 9 - classes // 10)
    # parse_math=False: a label such as "$5 note" is not a formula
    rotation = 0 if classes * max(map(len, names)) <= 32 else 90
    axis.set_xticks(range(classes), names, fontsize=size, parse_math=False, rotation=rotation)
    sources = [*names, "any class"] if distances.universal else names
    axis.set_yticks(range(len(sources)), sources, fontsize=size, parse_math=False)


def _legend(figure: Figure, found: Sequence[ClassDistances]) -> None:
    """Explain hatched and pale cells, where there are any."""
    handles = []
    if any(not pair.reached for each in found for pair in each.pairs + each.universal):
        handles.append(Patch(**_UNREACHED, label="not reached by the search"))
    if any(len(each.pairs) < len(each.classes) * (len(each.classes) - 1) for each in found):
        handles.append(Patch(facecolor=_EMPTY, label="not measured"))
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=9)


def training_curves(report: Report) -> Figure:
    """Loss, trigger success, trigger size and accuracy over the steps of the hardening."""
    curve = report.hardening.curve if report.hardening else ()
    if not curve:
        return message("No training curve was recorded.")
    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    _curve(axes[0, 0], curve, "loss", "Training loss", _BLUE)
    _curve(axes[0, 1], curve, "validation_accuracy", "Validation accuracy (share)", _BLUE)
    _curve(axes[1, 0], curve, "bank_success", "Stamped images that the triggers turn (share)", _ORANGE)
    _curve(axes[1, 1], curve, "bank_distance", "Size of the triggers (mean L2)", _ORANGE)
    for axis in axes[1]:
        axis.set_xlabel("optimizer step")
    figure.suptitle("Hardening: the classifier (blue) against its triggers (orange)", fontsize=12, fontweight="bold")
    return figure


def _curve(axis: Axes, curve: Sequence[TrainingPoint], field: str, title: str, colour: str) -> None:
    """One quantity over the steps; points where it was not measured are left out."""
    points = [(point.step, getattr(point, field)) for point in curve if getattr(point, field) is not None]
    axis.set_title(title, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    if points:
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, color=colour, linewidth=1.6, marker="o" if len(points) < 20 else "", markersize=3)
    else:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=_GREY)


def success_curves(report: Report) -> Figure:
    """What universal triggers of each size do, before and after hardening: one line a class, the median in bold."""
    states = [("Before hardening", report.before.distances, _ORANGE)]
    if report.after is not None:
        states.append(("After hardening", report.after.distances, _BLUE))
    if not report.before.distances.universal and not report.before.distances.kinds:
        return message("No universal triggers were searched.")
    figure = Figure(figsize=(max(3.6 * len(states), 5.0), 3.4), layout="constrained")
    axes = figure.subplots(1, len(states), squeeze=False, sharey=True)[0]
    for axis, (title, distances, colour) in zip(axes, states, strict=True):
        _draw_success(axis, distances, colour)
        axis.set_title(title, fontsize=10, loc="left")
    axes[0].set_ylabel("images turned (%)")
    figure.suptitle("What the best universal trigger of each class does", fontsize=12, fontweight="bold")
    return figure


def _draw_success(axis: Axes, distances: ClassDistances, colour: str) -> None:
    """Success against size, for each class; the class that is reached most easily is named."""
    curves = {}
    for k in distances.classes:
        rates = [distances.best_at(level, k) for level in range(len(GREY_LEVELS))]
        if known := [rate for rate in rates if rate is not None]:
            curves[k] = np.array([100 * rate.value for rate in known])
    for curve in curves.values():
        axis.plot(GREY_LEVELS, curve, color=colour, linewidth=0.8, alpha=0.45)
    if curves:
        axis.plot(GREY_LEVELS, np.median(list(curves.values()), axis=0), color=colour, linewidth=2.4, marker="o")
        worst = max(curves, key=lambda k: float(curves[k].mean()))
        label = printable(distances.labels[worst], 24)
        axis.annotate(label, (GREY_LEVELS[0], float(curves[worst][0])), fontsize=8, color=colour, parse_math=False)
    axis.set_ylim(-2, 102)
    axis.set_xticks(GREY_LEVELS)
    axis.set_xlabel("largest change of an image (grey levels, RMS)", fontsize=8)
    axis.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def message(text: str) -> Figure:
    """A figure that says why there is none."""
    figure = Figure(figsize=(6.0, 2.0), layout="constrained")
    figure.text(0.5, 0.5, text, ha="center", va="center", color=_GREY)
    return figure


OUT_OF_REACH = 0.1
"""Success of universal triggers up to which an attack of their size is called out of reach."""


@dataclass(frozen=True, eq=False)
class AttackReach:
    """One attack beside the class distances of a model: is it smaller than what the search had to change?

    Attributes:
        name: in the plot.
        size: of its trigger, in grey levels (0-255) RMS.
        target: the class that it produces.
        before: distances before hardening.
        after: distances after it; None if there was none.
    """

    name: str
    size: float
    target: int
    before: ClassDistances
    after: ClassDistances | None = None

    @staticmethod
    def of(report: Report) -> list[AttackReach]:
        """One for each attack of a report."""
        before, after = report.before, report.after
        return [
            AttackReach(
                name=attack.name,
                size=attack.size * before.distances.rms_per_l2,
                target=attack.target,
                before=before.distances,
                after=after.distances if after else None,
            )
            for attack in before.evaluation.attacks
        ]

    @property
    def out_of_reach(self) -> bool | None:
        """Whether nothing found of that size produces its class; None if nothing was found, or nothing so large tried.

        It is if every distance to the class is larger, and the best universal trigger of the next size that was tried
        turns at most a tenth of the images.
        """
        found = self.after or self.before
        into = [pair.rms for pair in found.pairs + found.universal if pair.target == self.target and pair.rms]
        level = next((number for number, size in enumerate(GREY_LEVELS) if size >= self.size), None)
        rate = None if level is None else found.best_at(level, self.target)
        if into and self.size >= min(into):
            return False
        return None if rate is None else rate.value <= OUT_OF_REACH


def attack_reach(rows: Sequence[AttackReach]) -> Figure:
    """The size of each attack on one axis with the class distances to its target, before and after hardening.

    Large dots are universal triggers and small ones those of a single source class. A diamond to the left of all
    dots is an attack that changes less than any trigger that the search found to work.
    """
    if not rows:
        return message("There is no attack with a size and distances.")
    rows = sorted(rows, key=lambda row: row.size)
    figure = Figure(figsize=(8.4, 0.42 * len(rows) + 2.0), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    for place, row in enumerate(rows):
        for found, shift, colour in ((row.before, -0.17, _ORANGE), (row.after, 0.17, _BLUE)):
            if found is not None:
                _draw_distances(axis, found, row.target, place + shift, colour)
        axis.plot([row.size], [place], "D", color="black", markersize=5, zorder=3)
        said = {True: "out of reach", False: "within reach", None: "nothing found"}[row.out_of_reach]
        axis.annotate(said, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=_GREY)
    axis.set_yticks(range(len(rows)), [printable(row.name, 36) for row in rows], fontsize=8, parse_math=False)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    low, high = axis.get_xlim()
    axis.set_xlim(low := low / 1.2, high := high * 1.2)
    ticks = [tick for tick in (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150) if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("grey levels (0-255), RMS")
    marks = [("D", "black", 5, "size of the attack's trigger"), ("o", _ORANGE, 6, "distance to its target, before")]
    if any(row.after is not None for row in rows):
        marks.append(("o", _BLUE, 6, "after hardening"))
    handles = [Line2D([], [], marker=m, color=c, markersize=s, linestyle="", label=text) for m, c, s, text in marks]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    figure.suptitle("Attacks and class distances on one axis", fontsize=12, fontweight="bold")
    return figure


def _draw_distances(axis: Axes, found: ClassDistances, target: int, height: float, colour: str) -> None:
    """All distances to one class, on one line; those that were not reached are in the margin's word only."""
    for pairs, size, strength in ((found.pairs, 2.5, 0.45), (found.universal, 6.5, 1.0)):
        values = [pair.rms for pair in pairs if pair.target == target and pair.rms is not None]
        axis.plot(values, [height] * len(values), "o", color=colour, markersize=size, alpha=strength, markeredgewidth=0)


def trigger_gallery(rows: Sequence[GalleryRow]) -> Figure:
    """Each image, the image with a trigger on it, and their difference, amplified as its title states."""
    if not rows:
        return message("No trigger was found.")
    figure = Figure(figsize=(6.6, 2.35 * len(rows) + 0.7), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        difference = row.stamped - row.image
        factor = amplification(difference)
        _show(line[0], row.image).axes.set_title(printable(row.caption, 34), fontsize=9, loc="left", parse_math=False)
        _show(line[1], row.stamped)
        line[1].set_title("with trigger", fontsize=9, loc="left")
        _show(line[2], 0.5 + factor * difference)
        rms = 255 * float(np.sqrt(np.mean(difference**2)))
        line[2].set_title(f"difference × {factor:g} (RMS {rms:.1f})", fontsize=9, loc="left")
    figure.suptitle("Triggers found: image, image with trigger, difference", fontsize=12, fontweight="bold")
    figure.supxlabel("Mid-grey is no change; RMS in grey levels (0-255).", fontsize=8, color=_GREY)
    return figure


def amplification(difference: Array) -> float:
    """The largest power of two that keeps all but the most extreme percent of values on the scale."""
    extreme = float(np.quantile(np.abs(difference), 0.99))
    return 1.0 if extreme == 0 else 2.0 ** max(0, min(6, math.floor(math.log2(0.5 / extreme))))


def _show(axis: Axes, image: Array) -> AxesImage:
    """Show an image ``(H, W, C)`` of one or three channels, pixel by pixel."""
    axis.set_axis_off()
    pixels = np.clip(image, 0, 1)
    if pixels.shape[-1] != 3:  # one channel is shown in grey, any other number by its mean
        pixels = np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1)
    return axis.imshow(pixels, interpolation="nearest")
