"""What lies in a repository: formats that carry code, links and lists that lead elsewhere, what the Hub says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from phard_hub.auditing.files import leads_out
from phard_hub.hub.copies import MOST_FILES
from phard_hub.hub.snapshot import Snapshot
from phard_hub.report.findings import error, note, warning
from phard_hub.report.record import Finding

_CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".whl", ".egg", ".llamafile"})
_COMPILED = frozenset(
    {".onnx", ".ort", ".tflite", ".pb", ".torchscript", ".ptl", ".pte", ".engine", ".plan", ".trt", ".mlmodel"}
)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def no_safetensors(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A01: there are no weights in the one format that cannot carry code."""
    if not any(name.endswith(".safetensors") for name in snapshot.files):
        yield error("PH-A01", snapshot.repo, "no *.safetensors file", "Convert the weights to safetensors.")


def code(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A03: the repository brings its own code, of which nothing is needed to load a class of the library."""
    for name in snapshot.listing:
        if _suffix(name) in _CODE:
            yield error(
                "PH-A03", name, "code in a model repository", "Use a model of a library class, without code files."
            )


def index(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A06: the list of weight shards leads out of the folder, or to files that were not hashed."""
    for name in snapshot.files:
        if not name.endswith(".index.json"):
            continue
        content = snapshot.json(name)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict) or not shards:
            yield error("PH-A06", name, "no weight_map", "Download the model again.")
            continue
        for shard in sorted({str(value) for value in shards.values()}):
            if leads_out(shard) or not shard.endswith(".safetensors"):
                yield error("PH-A06", name, f"leads to {shard}", "Do not use this model: its index is forged.")
            elif shard not in snapshot.files:
                yield error("PH-A06", name, f"{shard} is missing", "Download the model again.")


def scanners(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A10: the Hub's own scanners saw something; an error only for a file that is going to be read."""
    for flag in snapshot.flagged:
        name = flag.rsplit(" (", 1)[0]
        make = error if name in snapshot.files else warning
        yield make(
            "PH-A10", name, f"flagged by the Hub's scanners: {flag}", "Read the scan report on the model's page."
        )


def compiled(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A16: a graph of its own, which may compute anything; it is never read here, so it is a warning."""
    for name in snapshot.listing:
        if _suffix(name) in _COMPILED:
            yield warning(
                "PH-A16", name, "holds a graph that nobody compared with the model", "Delete it, or export it anew."
            )


def not_seen(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A31 to PH-A33, PH-A35: what pulling could not see or did not bring."""
    if snapshot.scanned is False:
        advice = "Audit it again when they have."
        yield note("PH-A35", snapshot.repo, "nothing flagged may mean that nothing was scanned yet", advice)
    if snapshot.from_cache:
        evidence = f"the files are those of the cache: {snapshot.from_cache}"
        yield note("PH-A31", snapshot.repo, evidence, "Audit it again when the Hub answers.")
    for file in snapshot.left_out:
        name = file.rsplit(" (", 1)[0]
        if name.endswith(".json"):
            yield error("PH-A33", name, f"not read: {file}", "That is no config: use another model.")
        else:
            yield note("PH-A32", name, f"not read: {file}", "Look at it yourself.")
    if len(snapshot.listing) > MOST_FILES:
        yield error("PH-A33", snapshot.repo, f"more than {MOST_FILES} files", "Copy the model to a new folder.")


CHECKS = (no_safetensors, code, index, scanners, compiled, not_seen)
