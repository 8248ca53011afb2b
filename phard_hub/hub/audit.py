"""Step two of three: look at the files of a model without running anything of it.

Each check is a small function that takes a `Snapshot` and yields `Finding`s. Files are read as bytes or
JSON only: nothing here imports or unpickles what it looks at. A finding of severity ``error`` forbids
loading; there is no way to overrule it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from phard_hub.errors import AuditError
from phard_hub.hub.pull import Snapshot
from phard_hub.report.record import Finding

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".keras", ".dill")
_REMOTE_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_OTHER_WEIGHTS = ("transformers_weights", "hf_hub_filename", "custom_load")
_MAX_EVIDENCE = 200


@dataclass(frozen=True)
class Audit:
    """A snapshot and everything that was noticed about it; the only thing that `load` accepts."""

    snapshot: Snapshot
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that forbid loading."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def require(self) -> None:
        """Refuse to go on if there are errors.

        Raises:
            AuditError: names each error by its id, file and advice.
        """
        if self.errors:
            listed = "; ".join(f"{error.id} {error.file}: {error.evidence}" for error in self.errors)
            advice = " ".join(dict.fromkeys(error.advice for error in self.errors))
            raise AuditError(f"{self.snapshot.repo} may not be loaded: {listed}.", advice=advice)


def audit(snapshot: Snapshot) -> Audit:
    """Check a model's files for what makes loading unsafe or unclear, without importing or unpickling them."""
    return Audit(snapshot, tuple(finding for check in CHECKS for finding in _guarded(check, snapshot)))


def _guarded(check: Callable[[Snapshot], Iterator[Finding]], snapshot: Snapshot) -> list[Finding]:
    """Run one check; one that crashes has not passed."""
    try:
        return list(check(snapshot))
    except Exception as error:  # noqa: BLE001 - whatever a hostile file does to a check must not pass for "nothing found"
        evidence = f"{check.__name__.lstrip('_')} crashed: {type(error).__name__}: {error}"
        return [_error("PH-A99", snapshot.repo, evidence, "Report this file to the authors of phard-hub.")]


def _error(id_: str, file: str, evidence: str, advice: str) -> Finding:
    return Finding(id=id_, severity="error", file=file, evidence=_short(evidence), advice=advice)


def _warning(id_: str, file: str, evidence: str, advice: str) -> Finding:
    return Finding(id=id_, severity="warning", file=file, evidence=_short(evidence), advice=advice)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_EVIDENCE else line[: _MAX_EVIDENCE - 3] + "..."


def _no_safetensors(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A01: there are no weights in the one format that cannot carry code."""
    if not any(name.endswith(".safetensors") for name in snapshot.files):
        yield _error("PH-A01", snapshot.repo, "no *.safetensors file", "Convert the weights to safetensors.")


def _pickles(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A02: files that can run code when other programs load them; they are never opened here."""
    for name in snapshot.listing:
        if PurePosixPath(name).suffix.lower() in _PICKLES:
            yield _warning("PH-A02", name, "can run code when loaded", "Delete it: the safetensors are enough.")


def _python(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A03: the repository brings its own code."""
    for name in snapshot.listing:
        if PurePosixPath(name).suffix.lower() in (".py", ".pyc", ".so", ".dll", ".dylib"):
            yield _error(
                "PH-A03", name, "code in a model repository", "Use a model of a library class, without code files."
            )


def _remote_code(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A04: a JSON file names code to run."""
    for file, key, value in _json_items(snapshot):
        if key in _REMOTE_CODE and value:
            yield _error("PH-A04", file, f"{key} = {value}", f"Remove {key}: only library classes are loaded.")


def _kernels(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A05: a JSON file names compiled kernels on the Hub, which transformers would download and run."""
    for file, key, value in _json_items(snapshot):
        if ("_implementation" in key or "kernel" in key) and any("/" in text for text in _strings(value)):
            yield _error(
                "PH-A05", file, f"{key} = {value}", f"Remove {key}: it would load code from another repository."
            )


def _index(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A06: the list of weight shards leads out of the folder, or to files that were not hashed."""
    for name in snapshot.files:
        if name.endswith(".index.json"):
            content = _read(snapshot, name)
            shards = content.get("weight_map") if isinstance(content, dict) else None
            if not isinstance(shards, dict) or not shards:
                yield _error("PH-A06", name, "no weight_map", "Download the model again.")
                continue
            for shard in sorted({str(value) for value in shards.values()}):
                if _leads_out(shard) or not shard.endswith(".safetensors"):
                    yield _error("PH-A06", name, f"leads to {shard}", "Do not use this model: its index is forged.")
                elif shard not in snapshot.files:
                    yield _error("PH-A06", name, f"{shard} is missing", "Download the model again.")


def _links(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A07: a file is a link that leads out of the model's folder."""
    homes = [snapshot.folder.resolve()]
    if homes[0].parent.name == "snapshots":  # the Hub's cache: snapshots/<commit>/file -> blobs/<hash>
        homes.append(homes[0].parent.parent / "blobs")
    for name in snapshot.files:
        target = (snapshot.folder / name).resolve()
        if not any(target.is_relative_to(home) for home in homes):
            yield _error("PH-A07", name, f"is a link to {target}", "Copy the file into the folder.")


def _config(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A08 and PH-A09: the config is missing, broken or has no class names."""
    if "config.json" not in snapshot.files:
        yield _error("PH-A08", "config.json", "missing", "Give a folder or repository in the transformers format.")
        return
    config = _read(snapshot, "config.json")
    if not isinstance(config, dict):
        yield _error("PH-A08", "config.json", "is no JSON object", "Download the model again.")
    elif not config.get("id2label") and not config.get("label_names"):
        yield _warning(
            "PH-A09", "config.json", "no id2label", "Add the class names: images are matched to them by name."
        )


def _broken_json(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A08: any other JSON file that is broken."""
    for name in snapshot.files:
        if name.endswith(".json") and name != "config.json" and _read(snapshot, name) is None:
            yield _error("PH-A08", name, "is no JSON", "Download the model again.")


def _scanners(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A10: the Hub's own scanners saw something; an error only for a file that is going to be read."""
    for flag in snapshot.flagged:
        name = flag.rsplit(" (", 1)[0]
        make = _error if name in snapshot.files else _warning
        yield make(
            "PH-A10", name, f"flagged by the Hub's scanners: {flag}", "Read the scan report on the model's page."
        )


def _other_weights(snapshot: Snapshot) -> Iterator[Finding]:
    """PH-A11: something points the loader at other weights than the ones hashed."""
    if "adapter_config.json" in snapshot.listing:
        yield _error(
            "PH-A11", "adapter_config.json", "loads another base model", "Merge the adapter into the weights first."
        )
    for file, key, value in _json_items(snapshot):
        if key in _OTHER_WEIGHTS and value:
            yield _error("PH-A11", file, f"{key} = {value}", f"Remove {key}: it replaces the weights that were hashed.")


CHECKS: tuple[Callable[[Snapshot], Iterator[Finding]], ...] = (
    _no_safetensors,
    _pickles,
    _python,
    _remote_code,
    _kernels,
    _index,
    _links,
    _config,
    _broken_json,
    _scanners,
    _other_weights,
)


def _read(snapshot: Snapshot, name: str) -> Any:  # noqa: ANN401 - whatever the JSON holds
    """The content of a JSON file; None if it is not valid."""
    try:
        return json.loads((snapshot.folder / name).read_bytes())
    except (ValueError, RecursionError):
        return None


def _json_items(snapshot: Snapshot) -> Iterator[tuple[str, str, Any]]:
    """(file, key, value) of every entry, however deep, of every JSON file but the list of shards."""
    for name in snapshot.files:
        if name.endswith(".json") and not name.endswith(".index.json"):
            for key, value in _items(_read(snapshot, name)):
                yield name, key, value


def _items(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield from current.items()
            pending += current.values()
        elif isinstance(current, list):
            pending += current


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401
    """All strings inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _leads_out(path: str) -> bool:
    windows = PureWindowsPath(path)
    return bool(Path(path).is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts)
