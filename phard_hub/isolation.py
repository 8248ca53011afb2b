"""A training run leaves its process as it found it, and draws the same when it is continued."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Put the caller's generators back: those of torch, Python and numpy."""
    with torch.random.fork_rng():
        of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002


@contextmanager
def forgotten_afterwards(accelerator: Accelerator) -> Iterator[None]:
    """Make the accelerator forget what it prepared for this run, however it ends."""
    try:
        yield
    finally:
        accelerator.free_memory()


def generator_states(accelerator: Accelerator) -> dict[str, Tensor]:
    """States of the generators that training draws from, those of all processes, one process a row.

    These are torch's own: of the processor, and of the device if it is another. No image classifier of transformers
    or timm draws from those of Python or numpy.
    """
    states = {"processor": torch.get_rng_state()}
    if module := _device_module(accelerator.device):
        states["device"] = module.get_rng_state()
    return {name: accelerator.gather(state[None].to(accelerator.device)).cpu() for name, state in states.items()}


def check_generator_states(accelerator: Accelerator, states: Mapping[str, Tensor]) -> None:
    """Find out whether generators take these states, without touching those that are in use.

    Raises:
        RuntimeError: they do not.
    """
    devices = {"processor": torch.device("cpu"), "device": accelerator.device}
    for name, rows in states.items():
        for row in rows:
            torch.Generator(devices[name]).set_state(row)


def set_generator_states(accelerator: Accelerator, states: Mapping[str, Tensor]) -> None:
    """Let this process draw on from where it was."""
    row = accelerator.process_index
    torch.set_rng_state(states["processor"][row])
    if module := _device_module(accelerator.device):
        module.set_rng_state(states["device"][row])


def _device_module(device: torch.device) -> Any:  # noqa: ANN401 - one of torch's modules, such as torch.cuda
    """What keeps the generator of a device of its own; None for the processor."""
    return None if device.type == "cpu" else torch.get_device_module(device)


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
