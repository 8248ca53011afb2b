"""The tab Check: a stranger's model, audited and measured in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from phard_hub import Policy
from spaces_app import markup, texts
from spaces_app.checking import BUDGETS, DIGITS, Request, check
from spaces_app.curves import curves
from spaces_app.reports import judged
from spaces_app.wiring import PRIVATE, bounded_slider, told_steps


def tab() -> None:
    """Build the tab."""
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
            budget = bounded_slider(*BUDGETS, 60, step=10, label="Seconds that measuring may take")
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
            shown += curves(step.report.before.distances, "One change for all classes")
        shown += markup.audit_table(step.audit, Policy()) if step.audit else ""
        if shown != last:
            last, found = shown, step.report or step.audit
            yield shown, found.model_dump(mode="json") if found and step.ended else None
