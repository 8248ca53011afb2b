"""The page: five tabs, each in a module that wires pure functions."""

from __future__ import annotations

from typing import Any

import gradio as gr

from spaces_app import api, tab_check, tab_distances, tab_limits, tab_look, tab_reports, texts
from spaces_app.examples import Example
from spaces_app.uploads import EVERY, SECONDS
from spaces_app.wiring import PRIVATE, told


def build(example: Example) -> Any:  # noqa: ANN401 - of gradio
    """The whole page."""
    with gr.Blocks(title=texts.TITLE, analytics_enabled=False, delete_cache=(EVERY, SECONDS)) as page:
        gr.Markdown(texts.HEADER, elem_id="header")
        with gr.Tabs() as tabs:
            with gr.Tab("Look", id="look"):
                tab_look.tab(example)
            with gr.Tab("Distances", id="distances"):
                tab_distances.tab(example)
            with gr.Tab("Reports", id="reports"):
                left = tab_reports.tab(example)
            with gr.Tab("Check", id="check"):
                tab_check.tab()
            with gr.Tab("Limits", id="limits"):
                tab_limits.tab(example)
        page.load(told(tab_reports.linked), None, [tabs, *left], **PRIVATE)
        api.add(example)
    return page
