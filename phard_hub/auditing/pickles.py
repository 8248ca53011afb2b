"""Pickles beside the weights: what they would import, read by picklescan, which does not unpickle them.

They are never loaded here. Others may load them, so they are worth a look where picklescan is installed
(``pip install phard-hub[scan]``) and the files are at hand: from the Hub they are not downloaded. A pickle is known by
its name or, where the file is at hand, by how it begins, because whoever loads it may know it by another name.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from phard_hub.hub.copies import NotTakenError, open_inside
from phard_hub.hub.snapshot import Snapshot
from phard_hub.report.findings import error, warning
from phard_hub.report.record import Finding

if TYPE_CHECKING:
    from picklescan.scanner import ScanResult

MOST_PICKLES = 200
_PICKLES = frozenset({".bin", ".pt", ".pth", ".tar", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".dill"})
_OTHERS = frozenset({".h5", ".hdf5", ".keras"})  # Keras puts the byte code of Lambda layers in these
_READ_HERE = (".safetensors", ".json")  # whoever reads these as what they are unpickles nothing
_BINARY = re.compile(rb"\x80[\x02-\x05]|\x93NUMPY")
_TEXT = re.compile(rb"[(\]}]*([ci][A-Za-z_][\w.]*\n\w+\n|[dl]p\d+\n)")  # protocol 0 is printable
_ADVICE = "Delete it: the safetensors are enough."


def pickles(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A02, PH-A12, PH-A33: files that can run code when other programs load them."""
    count = 0
    for name in snapshot.listing:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in _OTHERS:
            yield _not_looked_into(name, "it is no pickle")
        elif suffix in _PICKLES or (suffix not in _READ_HERE and _begins_like_one(snapshot, name)):
            count += 1
            if count <= MOST_PICKLES:
                yield _look_into(snapshot, name)
    if count > MOST_PICKLES:
        evidence = f"{count} pickles, of which {MOST_PICKLES} were looked into"
        yield error("PH-A33", snapshot.repo, evidence, "Delete them: the safetensors are enough.")


def _begins_like_one(snapshot: Snapshot, name: str) -> bool:
    """Whether a file that is at hand holds a pickle, whatever it is called."""
    with suppress(NotTakenError, OSError), _open(snapshot, name) as file:
        head = file.read(256)
        if head.startswith(b"PK\x03\x04"):
            return _holds_one(file)
        return bool(_BINARY.match(head) or _TEXT.match(head))
    return False


def _holds_one(file: BinaryIO) -> bool:
    """Whether there is a pickle in a zip archive, which is what torch writes."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(PurePosixPath(name).suffix.lower() in _PICKLES for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True  # whoever reads it as something else may still find one


def _open(snapshot: Snapshot, name: str) -> BinaryIO:
    """A file of the repository, if it is here, a regular file, and inside of the folder."""
    if snapshot.origin is None:
        raise NotTakenError("is not at hand")
    return open_inside(snapshot.origin, name)


def _not_looked_into(name: str, why: str, advice: str = _ADVICE) -> Finding:
    return warning("PH-A02", name, f"can run code when loaded; not looked into, because {why}", advice)


def _look_into(snapshot: Snapshot, name: str) -> Finding:
    try:
        with _open(snapshot, name) as file:
            result = _scan(file, name)
    except (NotTakenError, OSError):
        return _not_looked_into(name, "it is not at hand")
    except ModuleNotFoundError:
        advice = f"{_ADVICE} To look into it, install phard-hub[scan]."
        return _not_looked_into(name, "picklescan is not installed", advice)
    except Exception as crash:  # noqa: BLE001 - it parses hostile bytes, and what it cannot read is no reason to stop
        return _not_looked_into(name, f"picklescan failed: {crash}")
    return _judge(name, result)


def _scan(file: BinaryIO, name: str) -> ScanResult:
    """What picklescan reads in a file, without what it writes to the log."""
    from picklescan.scanner import scan_bytes

    with _silent("picklescan"):
        return scan_bytes(file, name, PurePosixPath(name).suffix)


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
