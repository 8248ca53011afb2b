"""Pickles beside the weights: what they would import, read by picklescan, which does not unpickle them.

They are never loaded here. Others may load them, so they are worth a look where picklescan is installed
(``pip install phard-hub[scan]``) and the files are at hand: from the Hub they are not downloaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from phard_hub.hub.audit.files import lies_inside
from phard_hub.hub.pull import Snapshot
from phard_hub.report.findings import error, warning
from phard_hub.report.record import Finding

if TYPE_CHECKING:
    from picklescan.scanner import ScanResult

_PICKLES = frozenset({".bin", ".pt", ".pth", ".tar", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".dill"})
_OTHERS = frozenset({".h5", ".hdf5", ".keras"})  # Keras puts the byte code of Lambda layers in these
_ADVICE = "Delete it: the safetensors are enough."


def pickles(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A02, PH-A12: files that can run code when other programs load them."""
    for name in snapshot.listing:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in _OTHERS:
            yield _not_looked_into(name, "it is no pickle")
        elif suffix in _PICKLES:
            yield _look_into(snapshot, name)


def _not_looked_into(name: str, why: str, advice: str = _ADVICE) -> Finding:
    return warning("PH-A02", name, f"can run code when loaded; not looked into, for {why}", advice)


def _look_into(snapshot: Snapshot, name: str) -> Finding:
    path = snapshot.folder / name
    if not path.is_file() or not lies_inside(snapshot, name):
        return _not_looked_into(name, "it is not at hand")
    try:
        result = _scan(path)
    except ModuleNotFoundError:
        advice = f"{_ADVICE} To look into it, install phard-hub[scan]."
        return _not_looked_into(name, "picklescan is not installed", advice)
    except Exception as crash:  # noqa: BLE001 - it parses hostile bytes, and what it cannot read is no reason to stop
        return _not_looked_into(name, f"picklescan failed: {crash}")
    return _judge(name, result)


def _scan(path: Path) -> ScanResult:
    """What picklescan reads in a file, without what it writes to the log."""
    from picklescan.scanner import scan_file_path

    with _silent("picklescan"):
        return scan_file_path(str(path))


def _judge(name: str, result: ScanResult) -> Finding:
    imports = {level: _names(result, level) for level in ("dangerous", "suspicious")}
    if imports["dangerous"]:
        return error("PH-A12", name, f"imports {imports['dangerous']}", "Do not use this model, and report it.")
    if result.scan_err:
        return _not_looked_into(name, "picklescan could not read all of it")
    seen = f"imports {imports['suspicious']}, which picklescan does not know" if imports["suspicious"] else ""
    return warning(
        "PH-A02", name, f"can run code when loaded; {seen or 'picklescan sees no dangerous import in it'}", _ADVICE
    )


def _names(result: ScanResult, level: str) -> str:
    return ", ".join(sorted(f"{found.module}.{found.name}" for found in result.globals if found.safety.value == level))


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    log = logging.getLogger(logger)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


CHECKS = (pickles,)
