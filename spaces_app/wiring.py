"""What all tabs share: how an error of the library is told, and events that programs are not offered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from phard_hub.errors import PhardError

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def told(act: Callable[..., Any]) -> Callable[..., Any]:
    """Show an error of the library as one line on the page."""

    @functools.wraps(act)
    def tell(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        try:
            return act(*arguments, **named)
        except PhardError as error:
            raise gr.Error(str(error), duration=20, print_exception=False) from error

    return tell


def told_steps(act: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same as `told`, for what is shown step by step."""

    @functools.wraps(act)
    def tell(*arguments: Any) -> Iterator[Any]:  # noqa: ANN401
        try:
            yield from act(*arguments)
        except PhardError as error:
            raise gr.Error(str(error), duration=20, print_exception=False) from error

    return tell
