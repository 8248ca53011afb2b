"""The tab Distances: how far classes are, by pairs, by size and by kind of change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import gradio as gr

from phard_hub import Policy, Report, gate
from phard_hub.errors import InputError
from phard_hub.report import OUTCOMES
from spaces_app import markup, texts
from spaces_app.curves import curves
from spaces_app.examples import TARGET, Example
from spaces_app.look import KINDS, Choice, caption, look, stamp
from spaces_app.reports import closest
from spaces_app.wiring import PRIVATE, told

HEAT_MAP_JS = """
element.addEventListener('click', event => {
  const cell = event.target.closest('button[data-target]');
  if (cell) trigger('click', {source_class: cell.dataset.source, target_class: cell.dataset.target});
});
"""
STAGES = {"backdoored": "Before hardening", "hardened": "After hardening"}
_STANDS_OUT = "max_outlier"
_FIRST = 3
"""Class of the image that is shown at first."""


def tab(example: Example) -> None:
    """Build the tab."""
    gr.Markdown(texts.DISTANCES)
    found = {name: example.found[name].distances for name in STAGES}
    top = markup.largest(*found.values())
    maps = {}
    with gr.Row():
        for name, title in STAGES.items():
            with gr.Column(min_width=300):
                html = markup.heat_map(found[name], title, top)
                maps[name] = gr.HTML(html, js_on_load=HEAT_MAP_JS, elem_id=f"heat-{name}")
    start = _of_pair(example, KINDS[1], _FIRST, TARGET)
    said = gr.HTML(start[1], elem_id="cell-said")
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            slider = gr.ImageSlider(
                start[0],
                label="Original | with the trigger of the cell",
                format="png",
                height=300,
                buttons=["fullscreen"],
            )
        with gr.Column(scale=5, min_width=300):
            answers = gr.HTML(start[2], elem_id="cell-answers")
    for name, kind in (("backdoored", KINDS[1]), ("hardened", KINDS[2])):
        maps[name].click(_cell(example, kind), None, [slider, said, answers], **PRIVATE)
    _by_size_and_kind(example)
    gr.Dataframe(
        closest(example.reports["backdoored"]),
        label="All pairs, the closest first, in grey levels; a click on a heading sorts",
        interactive=False,
        max_height=360,
        elem_id="closest",
    )


def _by_size_and_kind(example: Example) -> None:
    """Success against size, distances by kind, and which class stands out, before and after hardening."""
    found = {title: example.found[name].distances for name, title in STAGES.items()}
    gr.Markdown(texts.SIZES)
    drawn = "".join(curves(distances, title) for title, distances in found.items())
    gr.HTML(f'<div class="two">{drawn}</div>', elem_id="curves")
    gr.Markdown(texts.KINDS)
    gr.HTML("".join(standing_out(example)), elem_id="outliers")
    top = max(trigger.rms or 0.0 for each in found.values() for kind in each.kinds.values() for trigger in kind)
    maps = "".join(markup.kinds_map(distances, title, top) for title, distances in found.items())
    gr.HTML(f'<div class="two">{maps}</div>', elem_id="kinds")


def standing_out(example: Example) -> Iterator[str]:
    """What the gate says of the class that stands out most, before and after hardening and without a backdoor."""
    planted, honest = example.reports["backdoored"], example.reports["honest"]
    stages: dict[str, tuple[Report, Literal["before", "after"]]] = {
        "Before hardening": (planted, "before"),
        "After hardening": (planted, "after"),
        "The honest model": (honest, "before"),
    }
    for title, (report, stage) in stages.items():
        rule = next(rule for rule in gate(report, Policy(), stage=stage).rules if rule.name == _STANDS_OUT)
        kind = "good" if rule.outcome == "pass" else "bad"
        yield markup.notice(f"{title}: {rule.message} ({OUTCOMES[rule.outcome]}).", kind)


def _cell(example: Example, kind: str) -> Callable[..., Any]:
    """What a click on a cell of one of the maps shows."""
    known = [str(number) for number in range(len(example.labels))]

    def show(event: gr.EventData) -> tuple[Any, ...]:
        source, target = str(event.source_class), str(event.target_class)  # a browser sent them
        if target not in known or source not in ("", *known):
            raise InputError("There is no such cell.")
        return _of_pair(example, kind, int(source) if source else None, int(target))

    return told(show)


def _of_pair(example: Example, kind: str, source: int | None, target: int) -> tuple[Any, ...]:
    shown = source if source is not None else (target + 1) % len(example.labels)
    pixels = example.image(shown)
    choice = Choice(kind, source, target)
    view = look(pixels, stamp(example, pixels, choice), example.models)
    said = markup.notice(caption(example, choice, view.size))
    return (view.original, view.stamped), said, markup.bars(view.answers, example.labels[shown], example.labels[target])
