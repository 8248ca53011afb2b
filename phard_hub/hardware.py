"""What the hardware likes: bf16 where it multiplies bf16 natively, and passes that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import is_initialized


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
    """Images in one pass through a classifier: ``small`` of 3 x 32 x 32, fewer of larger ones, at least 8."""
    return max(8, small * 3072 // math.prod(image_shape))


def default_accelerator() -> Accelerator:
    """What the machine has, in bf16 where that is fast; a process that has an accelerator keeps its precision."""
    if is_initialized():
        return Accelerator()
    return Accelerator(mixed_precision="bf16" if has_fast_bf16(PartialState().device) else "no")
