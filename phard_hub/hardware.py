"""What the hardware likes: bf16 where it multiplies bf16 natively, and passes that fit into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import joblib
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import is_initialized

from phard_hub.errors import InputError, harmless

_AT_ONCE: ContextVar[int | None] = ContextVar("images_at_once", default=None)
_DEVICE: ContextVar[str | None] = ContextVar("device", default=None)


@contextmanager
def computing(device: str | None = None, at_once: int | None = None) -> Iterator[None]:
    """Compute on this device, and with so many images in one pass; None chooses for itself.

    Args:
        device: such as "cpu", "cuda" or "cuda:1".
        at_once: images in one pass. The batches of a training stay: larger ones go through part by part.

    Raises:
        InputError: the machine has no such device, or there are several processes, which each have their own.
    """
    if device is not None:
        _require_device(device)
    if "OMP_NUM_THREADS" not in os.environ:
        # Where a container may use four cores of a hundred, torch would start a hundred threads that wait for four.
        torch.set_num_threads(min(torch.get_num_threads(), joblib.cpu_count()))
    tokens = _DEVICE.set(device), _AT_ONCE.set(at_once)
    try:
        yield
    finally:
        _DEVICE.reset(tokens[0])
        _AT_ONCE.reset(tokens[1])


def _require_device(device: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        advice = "Leave --device out: the launcher gives each process its own."
        raise InputError("One device cannot be chosen for several processes.", advice=advice)
    there = torch.accelerator.current_accelerator(check_available=True)
    names = ["cpu"]
    if there is not None:
        names += [there.type, *(f"{there.type}:{k}" for k in range(torch.accelerator.device_count()))]
    if device not in names:
        raise InputError(f"There is no device {harmless(device)!r} here.", advice=f"Use one of {', '.join(names)}.")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 on this device; software emulation does not count."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(capabilities.get(unit, False) for unit in ("amx_bf16", "avx512_bf16"))


def fast_autocast(device: torch.device, *, enabled: bool = True) -> torch.autocast:
    """bf16 autocast where that is fast, otherwise a context that changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_fast_bf16(device))


def images_at_once(image_shape: Sequence[int], small: int = 250) -> int:
    """Images in one pass through a classifier: ``small`` of 3 x 32 x 32, fewer of larger ones, at least 8.

    A GPU takes so many for each four GiB of its memory, or most of it would be idle. Where `computing` says how
    many, it is so many.
    """
    room = 1 if _DEVICE.get() == "cpu" else _room_on_card()
    return _AT_ONCE.get() or room * max(8, small * 3072 // math.prod(image_shape))


@cache
def _room_on_card() -> int:
    """How many times what a CPU takes in one pass this machine's GPU takes; 1 where there is none."""
    if not torch.cuda.is_available():
        return 1
    return max(1, int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory) >> 32)


def images_with_gradient(image_shape: Sequence[int], device: torch.device) -> int:
    """Images of which all that a network computes may be kept at once, until the gradients of a training are taken.

    By default 2,000 of 3 x 32 x 32 for each 12 GiB of memory of a card, or on processors: 40 of 3 x 224 x 224, of which
    a ViT-B/16 keeps 6 GB. A step of hardening it, 51 at once, was seen to need 10 GiB in all.
    """
    return images_at_once(image_shape, small=666 if device.type == "cuda" else 2000)


def default_accelerator() -> Accelerator:
    """What the machine has, in bf16 where that is fast; a process that has an accelerator keeps its precision."""
    if is_initialized():
        return Accelerator()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if (device := _DEVICE.get()) is not None:
        _begin_on(device)
    elif processes > 1:
        # Without a word about CPUs, accelerate makes each process of several on them a job of its own.
        PartialState(cpu=torch.accelerator.current_accelerator(check_available=True) is None)
    accelerator = Accelerator(mixed_precision="bf16" if has_fast_bf16(PartialState().device) else "no")
    if accelerator.num_processes < processes:
        problem = f"{processes} processes were started, and accelerate joins {accelerator.num_processes} of them."
        raise InputError(problem, advice="Start them with `phard launch N ...`, or torchrun; see the README.")
    return accelerator


def _begin_on(device: str) -> None:
    """Begin accelerate's state on a device, which it takes from the environment."""
    name = "ACCELERATE_TORCH_DEVICE"
    former = os.environ.get(name)
    os.environ[name] = device
    try:
        PartialState(cpu=device == "cpu")
    finally:
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former
