"""The tab Reports: two reports side by side, and the gate with limits to move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from phard_hub import Policy, Report, distance_maps, success_curves
from spaces_app import markup, texts
from spaces_app.examples import Example
from spaces_app.reports import (
    CHOSEN_POLICIES,
    LIMITS,
    SHIPPED,
    SIZES,
    SUCCESS_AT,
    judged,
    moved,
    read_file,
    read_hub,
    shipped,
)
from spaces_app.wiring import PRIVATE, bounded_slider, told

START = {name: getattr(Policy(), name) for name in LIMITS} | {SUCCESS_AT: 0.5}
_DEFAULTS = (next(iter(CHOSEN_POLICIES)), next(iter(SIZES)), *START.values())
REPORT_PARAMETER = "report"
"""``?report=org/model@revision`` opens the page with the report of a release; cards of releases link to it."""


def tab(example: Example) -> list[Any]:
    """The tab; what the report on its left is shown in."""
    gr.Markdown(texts.REPORTS)
    with gr.Accordion("Policy", open=True):
        with gr.Row():
            policy = gr.Radio(list(CHOSEN_POLICIES), value=next(iter(CHOSEN_POLICIES)), label="Policy", min_width=320)
            size = gr.Radio(list(SIZES), value=next(iter(SIZES)), label="Limit universal triggers", min_width=320)
        with gr.Row():
            limits = [
                bounded_slider(low, high, START[name], step=step, label=label, min_width=320)
                for name, (label, low, high, step) in LIMITS.items()
            ]
    with gr.Row():
        sides = [_side(example, name, [policy, size, *limits], number) for number, name in enumerate(SHIPPED)]
    return sides[0]


def _side(example: Example, name: str, limits: list[Any], number: int) -> list[Any]:
    start = shipped(example, name)
    with gr.Column(min_width=300):
        state = gr.State((start, None), time_to_live=1800)
        choice = gr.Dropdown(list(SHIPPED), value=name, label="A report that is here")
        hub_id = gr.Textbox(label="or that of a release on the Hub", placeholder="org/model@revision", max_lines=1)
        with gr.Row():
            read = gr.Button("Read from the Hub", size="sm", min_width=120)
            upload = gr.UploadButton(
                "Upload phard_report.json", size="sm", min_width=160, file_types=[".json"], elem_id=f"report-{number}"
            )
        verdict = gr.HTML(_verdict((start, None), *_DEFAULTS), elem_id=f"verdict-{number}")
        numbers = gr.HTML(markup.report_table(start), elem_id=f"numbers-{number}")
        with gr.Accordion("Plots", open=False) as plots:
            maps, curves = gr.Plot(show_label=False), gr.Plot(show_label=False)
    plots.expand(lambda held: (distance_maps(held[0]), success_curves(held[0])), state, [maps, curves], **PRIVATE)
    outputs = [choice, state, verdict, numbers, maps, curves]

    def from_name(name: str, *values: Any) -> tuple[Any, ...]:  # noqa: ANN401
        return _shown((shipped(example, name), None), *values, name=name)

    def from_hub(name: str, *values: Any) -> tuple[Any, ...]:  # noqa: ANN401
        return _shown(read_hub(name), *values)

    def from_file(path: str, *values: Any) -> tuple[Any, ...]:  # noqa: ANN401
        return _shown((read_file(Path(path)), None), *values)

    visible: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    choice.input(told(from_name), [choice, *limits], outputs, **PRIVATE)
    gr.on([read.click, hub_id.submit], told(from_hub), [hub_id, *limits], outputs, **visible)
    upload.upload(told(from_file), [upload, *limits], outputs, **visible)
    events = [limit.input for limit in limits]
    gr.on(events, told(_verdict), [state, *limits], verdict, trigger_mode="always_last", **PRIVATE)
    return outputs


def _shown(held: tuple[Report, Any], *values: Any, name: str | None = None) -> tuple[Any, ...]:  # noqa: ANN401
    """A report as a side shows it, with its name if it is one that is here; plots are drawn when they are opened."""
    return name, held, _verdict(held, *values), markup.report_table(held[0]), None, None


def _verdict(held: tuple[Report, Any], policy: str, size: str, *values: float) -> str:
    (report, deployed), chosen = held, CHOSEN_POLICIES.get(policy)
    limits = moved(report, chosen, values, SIZES.get(size))
    return markup.verdict_table(judged(report, limits, deployed, chosen))


def linked(request: gr.Request) -> tuple[Any, ...]:
    """What a link with the id of a release opens; nothing otherwise."""
    name = request.query_params.get(REPORT_PARAMETER)
    if not name:
        return (gr.skip(),) * 7
    return gr.Tabs(selected="reports"), *_shown(read_hub(str(name)), *_DEFAULTS)
