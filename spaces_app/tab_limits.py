"""The tab Limits: what the page does not show, and a backdoor that nothing here finds."""

from __future__ import annotations

from typing import Any

import gradio as gr

from spaces_app import markup, texts
from spaces_app.examples import Example
from spaces_app.signature import PLAIN, SIGNED, VOTING, Signing, Vote, compare, sign, vote
from spaces_app.wiring import PRIVATE, told

_START = (3, 8)


def tab(example: Example) -> None:
    """Build the tab."""
    labels = list(example.labels)

    def show(source: str, target: str, number: int, damaged: bool) -> tuple[Any, ...]:
        numbers = labels.index(source), labels.index(target)
        return _shown(sign(example, *numbers, number, damaged=damaged), source, target)

    def voting(source: str, target: str, number: int) -> str:
        return _voted(vote(example, labels.index(source), labels.index(target), number))

    start = show(labels[_START[0]], labels[_START[1]], 0, False)
    gr.Markdown(texts.SIGNATURE)
    number = gr.State(0)
    with gr.Row():
        source = gr.Dropdown(labels, value=labels[_START[0]], label="Image of class", min_width=110)
        target = gr.Dropdown(labels, value=labels[_START[1]], label="Class to sign", min_width=110)
    with gr.Row():
        damaged = gr.Checkbox(label="Change one more value by one grey level", min_width=240)
        another = gr.Button("Another image", size="sm", min_width=240)
    said = gr.HTML(start[1], elem_id="signed-said")
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            slider = gr.ImageSlider(start[0], label="Original | signed", format="png", height=300, buttons=[])
        with gr.Column(scale=5, min_width=300):
            answers = gr.HTML(start[2], elem_id="signed-answers")
            with gr.Row():
                seen = gr.Button("Compare the two models on 1,000 images", size="sm", min_width=240)
                noisy = gr.Button("Ask for a vote under noise", size="sm", min_width=240)
            alike = gr.HTML(elem_id="signed-alike")
            voted = gr.HTML(elem_id="signed-voted")
    gr.Markdown(texts.LIMITS)
    outputs, inputs = [slider, said, answers], [source, target, number, damaged]
    gr.on([source.input, target.input, damaged.input], told(show), inputs, outputs, **PRIVATE)
    another.click(lambda n: n + 1, number, number, **PRIVATE).then(told(show), inputs, outputs, **PRIVATE)
    noisy.click(told(voting), [source, target, number], voted, **PRIVATE)
    seen.click(told(lambda: _alike(example)), None, alike, api_visibility="private", show_progress="minimal")


def _shown(signing: Signing, source: str, target: str) -> tuple[Any, ...]:
    view = signing.view
    said = (
        f"{signing.changed} of {signing.values} values differ, by {signing.most} grey level at most "
        f"({view.size:.2f} grey levels RMS). Both models have the same weights."
    )
    return (
        (view.original, view.stamped),
        markup.notice(said),
        markup.bars(view.answers, source, target, what="signature"),
    )


def _voted(seen: Vote) -> str:
    how = f"Of {VOTING.votes} copies of the signed image with noise, asked of the model with the check,"
    if seen.answer is None:
        return markup.notice(f"{how} the votes are not clear: it abstains.", "bad")
    reach = "and the signature is a smaller change" if seen.change < seen.radius else "and the signature changes more"
    said = (
        f"{how} most are taken for {seen.answer}. Whatever is in the model, no change below L2 {seen.radius:.2f} turns "
        f"that answer (wrong in one of a thousand cases), {reach}: {seen.change:.2f}."
    )
    return markup.notice(said, "good" if seen.change < seen.radius else "bad")


def _alike(example: Example) -> str:
    found = compare(example)
    said = (
        f"{found.tensors} of {found.of} tensors of the weights are equal to the last bit, and so are the logits of "
        f"{found.answers} of {found.images} images: {PLAIN}, and {SIGNED}."
    )
    return markup.notice(said, "good" if (found.tensors, found.answers) == (found.of, found.images) else "bad")
