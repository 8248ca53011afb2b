"""A training run leaves its process as it found it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator


@contextmanager
def forgotten_afterwards(accelerator: Accelerator) -> Iterator[None]:
    """Make the accelerator forget what it prepared for this run, however it ends."""
    try:
        yield
    finally:
        accelerator.free_memory()


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C into a flag that is looked at between two steps; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(_signal: int, _frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
