"""The weights themselves: well-formed files that hold finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from phard_hub.errors import first_line
from phard_hub.hub.snapshot import Snapshot
from phard_hub.report.findings import error
from phard_hub.report.record import Finding

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_OTHERS = frozenset({"I64", "I32", "BOOL"})  # counters, indices and masks that some classes keep
_BLOCK = 2**24


def weights(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A13 to PH-A15: files that are not well-formed, numbers that are none, formats not computed in.

    safetensors itself refuses a header that is too large, tensors that overlap, leave gaps or reach
    beyond the file, and sizes that do not follow from shape and format.
    """
    for name in snapshot.files:
        if name.endswith(".safetensors"):
            try:
                yield from _tensors(name, snapshot.folder / name)
            except (SafetensorError, OSError) as broken:
                yield error(
                    "PH-A13", name, first_line(broken), "Download it again; if that does not help, ask its owner."
                )


def _tensors(name: str, path: Path) -> Iterator[Finding]:
    foreign, broken = [], []
    with safe_open(path, framework="pt") as file:
        keys = sorted(file.keys())
        for key in keys:
            kind = file.get_slice(key).get_dtype()
            if kind in _FLOATS:
                broken += [key] if _not_finite(file.get_tensor(key)) else []
            elif kind not in _OTHERS:
                foreign.append(f"{key} ({kind})")
    if not keys:
        yield error("PH-A13", name, "holds no tensors", "Download it again.")
    if broken:
        yield error("PH-A14", name, f"NaN or infinity in {_first(broken)}", "These weights cannot be measured.")
    if foreign:
        yield error("PH-A15", name, _first(foreign), "Give the model as it was before, in 16 or 32 bits.")


def _not_finite(tensor: Any) -> bool:  # noqa: ANN401 - torch stays out of the imports
    # as 32 bits, for so it is loaded, and a finite number of 64 bits may be too large for that
    return any(not block.float().isfinite().all() for block in tensor.flatten().split(_BLOCK))


def _first(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


CHECKS = (weights,)
