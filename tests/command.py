"""How a command ended, for the fixture ``phard`` that runs one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import NamedTuple


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that says what was wrong; everything else on stderr is progress."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert "Traceback" not in self.err
        assert [line.startswith("phard: ") for line in lines].count(True) == 1, self.err
        assert lines[-1].startswith("phard: "), self.err
        return lines[-1]


Phard = Callable[..., Done]


def hear_interrupts() -> None:
    """Before a process begins: what a shell put into the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
