"""Where low precision is a gain: bf16 passes on hardware that multiplies bf16 natively."""

from __future__ import annotations

import torch


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 on this device; software emulation does not count."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def fast_autocast(device: torch.device, *, enabled: bool = True) -> torch.autocast:
    """bf16 autocast where that is fast, otherwise a context that changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_fast_bf16(device))
