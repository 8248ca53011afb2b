"""Where numbers come from: the model, and what they were measured with."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from phard_hub.hardware import has_fast_bf16
from phard_hub.hub.snapshot import Snapshot
from phard_hub.report.record import Environment, Source
from phard_hub.report.wording import public_name


def source_of(snapshot: Snapshot) -> Source:
    """Where a model came from; of a folder its name only, because reports are published."""
    return Source(
        repo=snapshot.repo if snapshot.commit else public_name(snapshot.repo),
        commit=snapshot.commit,
        files=snapshot.files,
        license=snapshot.license,
    )


def environment(accelerator: Accelerator) -> Environment:
    """What numbers are measured with here; all processes of the job have to ask."""
    packages = ["phard-hub", "torch", "transformers", "accelerate", "datasets", "huggingface-hub"]
    packages += [name for name in ("timm",) if name in sys.modules]  # imported for its own models only
    return Environment(
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        device=_device_name(accelerator.device),
        processes=accelerator.num_processes,
        precision="bf16" if has_fast_bf16(accelerator.device) else "fp32",
        peak_memory=max(gather_object([_peak_memory(accelerator.device)])) or None,
    )


def _peak_memory(device: torch.device) -> int:
    """Bytes that this process has needed at most until now; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
