"""How the library tells what it is doing without printing anything itself."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what is being done, steps done, steps in all)``."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""
