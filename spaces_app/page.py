"""The page: five tabs, wired to the pure functions beside this module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from phard_hub import Policy, Report, distance_maps
from phard_hub.errors import InputError, PhardError
from spaces_app import api, markup, texts
from spaces_app.checking import BUDGETS, DIGITS, Request, check
from spaces_app.examples import TARGET, Example
from spaces_app.look import KINDS, PARTS, STRONGEST, Choice, caption, look, stamp, uploaded
from spaces_app.reports import LIMITS, SHIPPED, closest, judged, read_file, read_hub, shipped

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
HEAT_MAP_JS = """
element.addEventListener('click', event => {
  const cell = event.target.closest('button[data-target]');
  if (cell) trigger('click', {source_class: cell.dataset.source, target_class: cell.dataset.target});
});
"""
REPORT_PARAMETER = "report"
"""``?report=org/model@revision`` opens the page with the report of a release; cards of releases link to it."""


def told(act: Callable[..., Any]) -> Callable[..., Any]:
    """Show an error of the library as one line on the page."""

    @functools.wraps(act)
    def tell(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        try:
            return act(*arguments, **named)
        except PhardError as error:
            raise gr.Error(str(error), duration=20, print_exception=False) from error

    return tell


def build(example: Example) -> Any:  # noqa: ANN401 - of gradio
    """The whole page."""
    # Whatever a visitor brings or is shown is deleted from the disk after a quarter of an hour.
    with gr.Blocks(title=texts.TITLE, analytics_enabled=False, delete_cache=(60, 900)) as page:
        gr.Markdown(texts.HEADER, elem_id="header")
        with gr.Tabs() as tabs:
            with gr.Tab("Look", id="look"):
                _look_tab(example)
            with gr.Tab("Distances", id="distances"):
                _distances_tab(example)
            with gr.Tab("Reports", id="reports"):
                left = _reports_tab(example)
            with gr.Tab("Check", id="check"):
                _check_tab()
            with gr.Tab("Limits", id="limits"):
                gr.Markdown(texts.LIMITS)
        page.load(told(_linked), None, [tabs, *left], **PRIVATE)
        api.add(example)
    return page


# Look


def _look_tab(example: Example) -> None:
    labels = list(example.labels)

    def show(source: str, target: str, kind: str, strength: float, parts: list[str], number: int, own: Any) -> Any:  # noqa: ANN401
        choice = Choice(kind, labels.index(source), labels.index(target), strength, parts)
        pixels = example.image(labels.index(source), number) if own is None else own
        return _shown(example, choice, pixels, source if own is None else None)

    start = show(labels[3], labels[TARGET], KINDS[0], 1, list(PARTS), 0, None)
    gr.Markdown(texts.LOOK)
    number, own = gr.State(0), gr.State(None)
    with gr.Row():
        with gr.Column(scale=7, min_width=300):
            with gr.Row():
                slider = gr.ImageSlider(
                    start[0], label="Original | with trigger", format="png", height=360, min_width=240, buttons=[]
                )
                change = gr.HTML(start[1], min_width=240, elem_id="look-change", padding=False)
            said = gr.HTML(start[2], elem_id="look-said")
            answers = gr.HTML(start[3], elem_id="look-answers")
        with gr.Column(scale=4, min_width=280):
            kind = gr.Radio(KINDS, value=KINDS[0], label="Trigger")
            with gr.Row():
                source = gr.Dropdown(labels, value=labels[3], label="Image of class", min_width=110)
                target = gr.Dropdown(labels, value=labels[TARGET], label="Target class", min_width=110)
            strength = gr.Slider(0, STRONGEST, 1, step=0.05, label="Strength", info="1: as it was planted or found")
            parts = gr.CheckboxGroup(list(PARTS), value=list(PARTS), label="Parts of a trigger that was found")
            with gr.Row():
                another = gr.Button("Another image", size="sm", min_width=120)
                upload = gr.UploadButton(
                    "Upload an image", size="sm", min_width=120, file_types=["image"], elem_id="look-upload"
                )
    outputs = [slider, change, said, answers]
    inputs = [source, target, kind, strength, parts, number, own]
    always_last: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last"}
    gr.on([target.input, kind.input, strength.input, parts.input], told(show), inputs, outputs, **always_last)
    source.input(lambda: (0, None), None, [number, own], **PRIVATE).then(told(show), inputs, outputs, **PRIVATE)
    another.click(lambda n: (n + 1, None), number, [number, own], **PRIVATE).then(
        told(show), inputs, outputs, **PRIVATE
    )
    size = example.models["honest"].image_size
    upload.upload(told(lambda path: uploaded(Path(path).read_bytes(), size)), upload, own, **PRIVATE).success(
        told(show), inputs, outputs, **PRIVATE
    )


def _shown(example: Example, choice: Choice, pixels: Tensor, source: str | None) -> tuple[Any, ...]:
    """What the tab shows; ``source`` is the name of the image's class, None for one that a visitor brought."""
    same = choice.kind in KINDS[1:3] and choice.source == choice.target
    view = look(pixels, pixels if same else stamp(example, pixels, choice), example.models)
    if same:
        said = markup.notice("Source and target are the same class: choose two.", "bad")
    else:
        said = markup.notice(caption(example, choice, view.size))
    target = TARGET if choice.kind == KINDS[0] else choice.target
    answers = markup.bars(view.answers, source, example.labels[target])
    change = markup.picture(view.change, f"The change, {view.factor:g} times as large")
    return (view.original, view.stamped), change, said, answers


# Distances


def _distances_tab(example: Example) -> None:
    gr.Markdown(texts.DISTANCES)
    found = {name: example.found[name].distances for name in ("backdoored", "hardened")}
    top = markup.largest(*found.values())
    maps = {}
    with gr.Row():
        for name, title in (("backdoored", "Before hardening"), ("hardened", "After hardening")):
            with gr.Column(min_width=300):
                html = markup.heat_map(found[name], title, top)
                maps[name] = gr.HTML(html, js_on_load=HEAT_MAP_JS, elem_id=f"heat-{name}")
    first = example.found["backdoored"].distances.smallest
    assert first is not None
    start = _of_pair(example, KINDS[1], first.source, first.target)
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
    gr.Dataframe(
        closest(example.reports["backdoored"]),
        label="All pairs, the closest first, in grey levels; a click on a heading sorts",
        interactive=False,
        max_height=360,
        elem_id="closest",
    )


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


# Reports


def _reports_tab(example: Example) -> list[Any]:
    """The tab; what the report on its left is shown in."""
    gr.Markdown(texts.REPORTS)
    with gr.Accordion("Limits of the policy", open=True), gr.Row():
        limits = [
            gr.Slider(low, high, getattr(Policy(), name), step=step, label=label, min_width=320)
            for name, (label, low, high, step) in LIMITS.items()
        ]
    with gr.Row():
        sides = [_side(example, name, limits, number) for number, name in enumerate(SHIPPED)]
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
        verdict = gr.HTML(_verdict((start, None), *[limit.value for limit in limits]), elem_id=f"verdict-{number}")
        numbers = gr.HTML(markup.report_table(start), elem_id=f"numbers-{number}")
        with gr.Accordion("Distance maps", open=False) as maps:
            plot = gr.Plot(show_label=False)
    maps.expand(lambda held: distance_maps(held[0]), state, plot, **PRIVATE)
    outputs = [state, verdict, numbers, plot]

    def show(held: tuple[Report, Any], *values: float) -> tuple[Any, ...]:
        return held, _verdict(held, *values), markup.report_table(held[0]), None

    def from_name(name: str, *values: float) -> tuple[Any, ...]:
        return show((shipped(example, name), None), *values)

    def from_hub(name: str, *values: float) -> tuple[Any, ...]:
        return show(read_hub(name), *values)

    def from_file(path: str, *values: float) -> tuple[Any, ...]:
        return show((read_file(Path(path)), None), *values)

    visible: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    choice.input(told(from_name), [choice, *limits], outputs, **PRIVATE)
    gr.on([read.click, hub_id.submit], told(from_hub), [hub_id, *limits], outputs, **visible)
    upload.upload(told(from_file), [upload, *limits], outputs, **visible)
    moved = [limit.input for limit in limits]
    gr.on(moved, told(_verdict), [state, *limits], verdict, trigger_mode="always_last", **PRIVATE)
    return outputs


def _verdict(held: tuple[Report, Any], *values: float) -> str:
    report, deployed = held
    return markup.verdict_table(judged(report, dict(zip(LIMITS, values, strict=True)), deployed))


def _linked(request: gr.Request) -> tuple[Any, ...]:
    """What a link with the id of a release opens; nothing otherwise."""
    name = request.query_params.get(REPORT_PARAMETER)
    if not name:
        return (gr.skip(),) * 5
    held = read_hub(str(name))
    start = [getattr(Policy(), limit) for limit in LIMITS]
    return gr.Tabs(selected="reports"), held, _verdict(held, *start), markup.report_table(held[0]), None


# Check


def _check_tab() -> None:
    gr.Markdown(texts.CHECK)
    with gr.Row():
        with gr.Column(min_width=300):
            repo = gr.Textbox(label="Model on the Hub", placeholder="org/model or org/model@revision", max_lines=1)
            archive = gr.File(
                label="or the zip of a model folder", file_types=[".zip"], height=140, elem_id="model-zip"
            )
            audit = gr.Button("Audit", variant="primary")
        with gr.Column(min_width=300):
            data = gr.Textbox(
                label="Images to measure with: a data set on the Hub",
                placeholder="org/data; without one: the shipped digits, for models of the classes 0 to 9",
                max_lines=1,
            )
            images = gr.File(
                label="or a zip with one folder a class", file_types=[".zip"], height=140, elem_id="image-zip"
            )
            budget = gr.Slider(*BUDGETS, 60, step=10, label="Seconds that measuring may take")
            measure = gr.Button("Audit and measure")
    cancel = gr.Button("Cancel", size="sm")
    shown = gr.HTML(elem_id="check-shown")
    with gr.Accordion("As JSON", open=False):
        record = gr.JSON(show_label=False, elem_id="check-json")
    shared: dict[str, Any] = {"concurrency_id": "check", "concurrency_limit": 1, "show_progress": "minimal"}
    auditing = audit.click(told_steps(audit_model), [repo, archive], [shown, record], api_name="audit", **shared)
    inputs = [repo, archive, data, images, budget]
    measuring = measure.click(told_steps(measure_model), inputs, [shown, record], api_name="measure", **shared)
    cancelled = markup.notice("Cancelled: the process that looked at the model was ended.")
    cancel.click(lambda: cancelled, None, shown, cancels=[auditing, measuring], queue=False, **PRIVATE)


def told_steps(act: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same as `told`, for what is shown step by step."""

    @functools.wraps(act)
    def tell(*arguments: Any) -> Iterator[Any]:  # noqa: ANN401
        try:
            yield from act(*arguments)
        except PhardError as error:
            raise gr.Error(str(error), duration=20, print_exception=False) from error

    return tell


def audit_model(repo: str, archive: str | None) -> Iterator[tuple[str, Any]]:
    """Look at a model's files, config and tensors without running anything of it.

    Args:
        repo: id on the Hub, as org/model or org/model@revision; empty for a zip.
        archive: zip of a model folder; it comes before the id.

    Returns:
        What was found as HTML, and the audit as JSON.
    """
    yield from _steps(_request(repo, archive))


def measure_model(
    repo: str, archive: str | None, data: str, images: str | None, budget: float
) -> Iterator[tuple[str, Any]]:
    """Audit a model and, if nothing forbids it, load it and measure its class distances within a time.

    Args:
        repo: id on the Hub, as org/model or org/model@revision; empty for a zip.
        archive: zip of a model folder; it comes before the id.
        data: id of a data set on the Hub; without one and without a zip, the digits of scikit-learn.
        images: zip with one folder a class; it comes before the id.
        budget: seconds that measuring may take, 30 to 300.

    Returns:
        What was found as HTML, and the report as JSON.
    """
    chosen = Path(images) if images else (data or "").strip() or DIGITS
    yield from _steps(_request(repo, archive, chosen, budget))


def _request(repo: str, archive: str | None, images: str | Path | None = None, budget: float = BUDGETS[0]) -> Request:
    path = None if archive is None else Path(archive)
    return Request(repo=(repo or "").strip() or None, archive=path, images=images, budget=float(budget))


def _steps(request: Request) -> Iterator[tuple[str, Any]]:
    last = None
    for step in check(request):
        shown = markup.notice(step.error, "bad") if step.error else ""
        shown += "" if step.ended else markup.progress_bar(step.doing, step.done, step.total)
        if step.report is not None:
            shown += markup.verdict_table(judged(step.report, {})) + markup.report_table(step.report)
            top = markup.largest(step.report.before.distances)
            shown += markup.heat_map(step.report.before.distances, "Class distances", top)
        shown += markup.audit_table(step.audit, Policy()) if step.audit else ""
        if shown != last:
            last, found = shown, step.report or step.audit
            yield shown, found.model_dump(mode="json") if found and step.ended else None
