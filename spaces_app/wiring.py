"""What all tabs share: how an error of the library is told, and events that programs are not offered.

The page shows errors as HTML, and they quote what visitors wrote: a link to the page could put a form or the picture of
another host into them. So they are escaped there; programs get the plain text.
"""

from __future__ import annotations

import functools
import html
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from pydantic import ValidationError, validate_call

from phard_hub.errors import PhardError

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def bounded_slider(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - of gradio
    """Gradio's slider, but a number typed beyond its range is the end of the range, which is what it shows then.

    It is no class of its own, because gradio writes a stub file beside the module of each.
    """
    made = gr.Slider(*arguments, **named)
    inside = made.preprocess

    def preprocess(payload: float) -> float:
        return inside(min(max(payload, made.minimum), made.maximum))

    made.preprocess = preprocess  # type: ignore[method-assign]
    return made


def told(act: Callable[..., Any]) -> Callable[..., Any]:
    """Show an error of the library as one line on the page."""

    @functools.wraps(act)
    def tell(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        try:
            return act(*arguments, **named)
        except PhardError as error:
            raise _on_page(error) from error

    return tell


def answered(act: Callable[..., Any]) -> Callable[..., Any]:
    """The same for programs, whose arguments may be of any type."""
    checked, names = validate_call(act), inspect.signature(act)

    @functools.wraps(act)
    def answer(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        try:
            return checked(**names.bind(*arguments, **named).arguments)  # by names, which an error then says
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            raise _shown(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}.") from error
        except PhardError as error:
            raise _shown(str(error)) from error

    return answer


def _on_page(error: PhardError) -> gr.Error:
    return _shown(html.escape(str(error), quote=False))


def _shown(text: str) -> gr.Error:
    return gr.Error(text, duration=20, print_exception=False)


def told_steps(act: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same as `told`, for what is shown step by step."""

    @functools.wraps(act)
    def tell(*arguments: Any) -> Iterator[Any]:  # noqa: ANN401
        try:
            yield from act(*arguments)
        except PhardError as error:
            raise _on_page(error) from error

    return tell
