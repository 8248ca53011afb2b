"""Plots: what they show, and that odd input does not break them."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from phard_hub.report.record import Report
from phard_hub.report.views.plots import GalleryRow, distance_maps, training_curves, trigger_gallery
from tests.report_factory import NOTHING_DONE, UNREACHED, change_state, make_distances, make_report


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=40, metadata={"Software": None})
    return buffer.getvalue()


def maps(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if axis.images]


def hatched(axis: Axes) -> set[tuple[float, float]]:
    patches = [patch for patch in axis.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    return {(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in patches}


def with_labels(labels: list[str]) -> Report:
    report = make_report()
    state = change_state(report.before, distances=make_distances(labels=labels))
    return make_report(before=state, after=None)


def test_both_maps_share_one_scale_and_mark_what_was_not_reached() -> None:
    figure = distance_maps(make_report())
    before, after = maps(figure)
    assert before.images[0].get_clim() == after.images[0].get_clim()
    assert (hatched(before), hatched(after)) == (set(), UNREACHED)
    assert [label.get_text() for label in after.get_yticklabels()] == ["cat", "dog", "frog", "horse", "any class"]
    assert len(after.texts) == 11 + 4
    assert "mean 21.5, 11 of 12 pairs reached" in after.get_title(loc="left")


def test_equal_reports_give_equal_files() -> None:
    assert png(distance_maps(make_report())) == png(distance_maps(make_report()))


@pytest.mark.parametrize(
    "labels", [["a", "b"], ["$5 note$", "\\frac{", "<b>|", "x" * 300], [str(k) for k in range(70)]]
)
def test_any_labels_and_number_of_classes(labels: list[str]) -> None:
    figure = distance_maps(with_labels(labels))
    assert png(figure)
    assert len(maps(figure)[0].texts) == {2: 2, 4: 16, 70: 0}[len(labels)]  # two classes have no universal trigger


def test_nothing_reached_and_nothing_measured() -> None:
    report = make_report()
    everything = [(source, target) for source in range(4) for target in range(4)]
    distances = make_distances(unreached=everything).model_copy(update={"universal": ()})
    unmeasured = distances.model_copy(update={"pairs": ()})
    for found in (distances, unmeasured):
        assert png(distance_maps(make_report(before=change_state(report.before, distances=found), after=None)))


def test_training_curves_leave_out_what_was_not_measured() -> None:
    figure = training_curves(make_report())
    lengths = [len(axis.lines[0].get_xydata()) for axis in figure.axes]  # type: ignore[arg-type]
    assert lengths == [20, 5, 20, 20]
    assert png(training_curves(make_report(hardening=NOTHING_DONE)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gallery_states_its_amplification(channels: int) -> None:
    image = np.full((8, 8, channels), 0.5)
    rows = [GalleryRow("cat -> $x", image, image + 0.02), GalleryRow("nothing", image, image)]
    figure = trigger_gallery(rows)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[2] == "difference × 16 (RMS 5.1)"  # 255 * 0.02 = 5.1
    assert titles[5] == "difference × 1 (RMS 0.0)"
    assert png(figure)
    assert png(trigger_gallery([]))


def test_no_global_state() -> None:
    code = "import sys, phard_hub.report.views.plots; print('matplotlib.pyplot' in sys.modules)"
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
