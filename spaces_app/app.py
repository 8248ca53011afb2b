"""Start the web page: `python spaces_app/app.py`, `phard demo`, or as a Space on the Hub."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # `python spaces_app/app.py`, as a Space does it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# Read when the libraries are imported. No token is sent, so no visitor sees what only the owner may.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
LARGEST_UPLOAD = "130mb"
WAITING = 64
"""Visitors that may wait in the queue; others are told to come again."""


def launch(**options: Any) -> Any:  # noqa: ANN401 - of gradio
    """Build the page and serve it; ``options`` are those of gradio's launch, such as ``server_port``.

    Returns:
        The page, which serves until its ``close()`` where ``prevent_thread_lock`` is given.
    """
    os.environ.update(QUIET)
    from spaces_app.uploads import own_folder, refuse_address

    own_folder()
    import gradio as gr
    import torch
    from gradio import processing_utils

    from spaces_app.examples import example
    from spaces_app.page import build
    from spaces_app.processes import SPARE

    processing_utils.async_ssrf_protected_get = refuse_address
    torch.set_num_threads(1)
    page = build(example())
    SPARE.keep()
    page.queue(max_size=WAITING, default_concurrency_limit=4)
    plain = ("system-ui", "sans-serif")
    theme = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=plain, font_mono=("ui-monospace", "monospace")
    )
    page.launch(
        theme=theme,
        head=f"<style>{(Path(__file__).parent / 'style.css').read_text('utf-8')}</style>",  # as css, it is rewritten
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        share=False,
        max_file_size=LARGEST_UPLOAD,
        state_session_capacity=200,
        mcp_server=importlib.util.find_spec("mcp") is not None,
        **options,
    )
    return page


if __name__ == "__main__":
    launch()
