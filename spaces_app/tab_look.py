"""The tab Look: an image, a trigger on it, and what each model answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from spaces_app import markup, texts
from spaces_app.examples import TARGET, Example
from spaces_app.look import KINDS, PARTS, STRONGEST, Choice, caption, look, stamp, uploaded
from spaces_app.wiring import PRIVATE, bounded_slider, told


def tab(example: Example) -> None:
    """Build the tab."""
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
            strength = bounded_slider(
                0, STRONGEST, 1, step=0.05, label="Strength", info="1: as it was planted or found"
            )
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
