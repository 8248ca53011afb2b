"""Room for the pixels of a data set: in memory, or on disk where they are many.

50,000 images of 3 x 256 x 256 are 10 GB. They are decoded once on each machine, whatever the number of processes, into
a file that all of them see as memory. It loses its name as soon as they do, so it goes when they end, however they end.
"""

from __future__ import annotations

import fcntl
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.state import is_initialized
from huggingface_hub import constants
from numpy.typing import NDArray
from torch import Tensor

from phard_hub.disk.atomic import as_output_error
from phard_hub.job import gathered

LARGEST_IN_MEMORY = 2**30
"""Bytes of pixels that each process has for itself."""
_NAME = "phard-pixels-"

T = TypeVar("T")
Pixels = NDArray[np.uint8]


def filled(shape: tuple[int, ...], fill: Callable[[Pixels], T]) -> tuple[Tensor, T]:
    """Pixels of this shape, and what comes of filling them.

    Where they are many, one process of each machine fills them for all there, and all have to call this.

    Args:
        shape: of the pixels, ``(N, C, H, W)``.
        fill: writes all of them.

    Raises:
        OutputError: the disk has no room for them.
        PhardError: that filling met, in any of the processes.
    """
    if math.prod(shape) <= LARGEST_IN_MEMORY:
        pixels: Pixels = np.empty(shape, np.uint8)
        found = fill(pixels)
        return torch.from_numpy(pixels), found
    state = PartialState() if is_initialized() else None
    if state is None or state.num_processes == 1:
        with _new_file(math.prod(shape)) as file:
            pixels = np.memmap(file, np.uint8, "r+", shape=shape)
        found = fill(pixels)
        return torch.from_numpy(pixels), found
    return _filled_once(shape, fill, state)


def _filled_once(shape: tuple[int, ...], fill: Callable[[Pixels], T], state: PartialState) -> tuple[Tensor, T]:
    """Let the first process of each machine fill a file, which the others there see."""
    with ExitStack() as stack:

        def filled_here() -> tuple[str, T] | None:
            if not state.is_local_main_process:
                return None
            file = stack.enter_context(_new_file(math.prod(shape)))
            return file.name, fill(np.memmap(file, np.uint8, "r+", shape=shape))

        came = gathered(filled_here)[state.process_index - state.local_process_index]
        assert came is not None
        name, found = came
        pixels: Pixels = np.memmap(name, np.uint8, "c", shape=shape)
        state.wait_for_everyone()
    return torch.from_numpy(pixels), found


def _new_file(size: int) -> IO[bytes]:
    """A file of so many bytes in the cache of the Hub, which loses its name when it is closed.

    Those that nobody holds any more are removed.

    Raises:
        OutputError: there is no room for it.
    """
    place = Path(constants.HF_HOME)
    with as_output_error(place):
        place.mkdir(parents=True, exist_ok=True)
        for left in place.glob(f"{_NAME}*"):
            with suppress(OSError), left.open("rb") as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
        file = _held(place)
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a disk that is full later on would kill the process
        except OSError:
            file.close()
            raise
    return file


def _held(place: Path) -> IO[bytes]:
    """A new file under a lock; another one where a process that looked for what was left took the first for such."""
    while True:
        file = tempfile.NamedTemporaryFile(prefix=_NAME, dir=place)  # noqa: SIM115 - the caller closes it
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        with suppress(FileNotFoundError):
            file.close()
