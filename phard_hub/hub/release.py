"""The release folder: the released weights with everything needed to load, judge and push them.

    config.json, *processor_config.json    byte for byte as they were pulled
    LICENSE*, NOTICE*                      likewise
    model.safetensors                      the released weights
    README.md                              the model card
    phard_report.json                      every number
    plots/*.png                            distance maps, triggers, training curves

A release appears as a whole or not at all: it is written beside its place, flushed to the disk, and
renamed into it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from matplotlib.figure import Figure
from torch import Tensor

from phard_hub.errors import CheckpointError, OutputError, ReportError
from phard_hub.hub.card import PLOTS, library_of, render_card
from phard_hub.hub.pull import sha256
from phard_hub.report.gate import Verdict, gate
from phard_hub.report.plots import GalleryRow, distance_maps, training_curves, trigger_gallery
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, Report

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
_COPIED = ("config.json", "*processor_config.json", "LICENSE*", "NOTICE*")
_LARGEST_COPY = 4 * 2**20
_DPI = 130
_ADVICE = {
    errno.ENOSPC: "Free some space or write to another disk.",
    errno.EDQUOT: "Your quota is used up: free some space or write to another disk.",
    errno.EFBIG: "The file size limit is reached (see `ulimit -f`).",
    errno.ENOTDIR: "Part of the path is a file: choose another folder.",
    errno.EROFS: "The disk is read-only: choose another folder.",
}


@dataclass(frozen=True)
class Release:
    """A release folder whose files are what its report says.

    Attributes:
        folder: where it lies.
        report: about the weights in it.
        files: the files of it, by their path in a repository; nothing else that lies in the folder.
    """

    folder: Path
    report: Report
    files: Mapping[str, Path]

    def card(
        self, verdict: Verdict, *, model_name: str, target_card: str | None = None, no_gate: str | None = None
    ) -> str:
        """The card of these files under another name, or in place of another card; see `render_card`."""
        base = _base_card(self.folder)
        return render_card(
            self.report,
            verdict,
            model_name=model_name,
            base_card=base,
            target_card=target_card,
            library_name=library_of(base),
            plots=[path for path in PLOTS if path in self.files],
            no_gate=no_gate,
        )


def read_release(folder: Path) -> Release:
    """Read a release, and check that nothing in it changed since it was written.

    Raises:
        ReportError: there is no report or no weights file, or the report is about other weights.
        CheckpointError: the config or the image processor is not the one that was pulled.
    """
    report = Report.read(folder / REPORT_NAME)
    patterns = (*_COPIED, WEIGHTS_NAME, CARD_NAME, REPORT_NAME, *PLOTS)
    found = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    files = {path.relative_to(folder).as_posix(): path for path in found}
    for name in ("config.json", WEIGHTS_NAME):
        if name not in files:
            raise ReportError(f"{folder} has no {name}.", advice="Give a folder that `phard harden` wrote.")
    _refuse_other_weights(report, sha256(files[WEIGHTS_NAME]))
    for name, path in files.items():
        if name in report.source.files and name not in (WEIGHTS_NAME, CARD_NAME):
            _refuse_changed(report, path, sha256(path), advice="Write the release again with `phard harden`.")
    return Release(folder, report, files)


def card_of(path: Path, policy: Policy, *, model_name: str | None = None) -> str:
    """The card of a release folder; of a report alone, the card without plots and without the base's text."""
    if path.is_dir():
        release = read_release(path)
        return release.card(gate(release.report, policy), model_name=model_name or path.resolve().name)
    report = Report.read(path)
    name = model_name or f"{Path(report.source.repo).name}-hardened"
    return render_card(report, gate(report, policy), model_name=name, plots=())


def serialize(weights: Mapping[str, Tensor]) -> bytes:
    """The bytes of ``model.safetensors`` for these weights; the order of the names does not matter.

    Tensors that share memory (tied weights) are written once for each name.
    """
    seen: set[int] = set()
    tensors = {name: _own(tensor, seen) for name, tensor in sorted(weights.items())}
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def _own(tensor: Tensor, seen: set[int]) -> Tensor:
    """The tensor on the CPU, contiguous, and in memory of its own (safetensors refuses shared memory)."""
    tensor = tensor.detach().cpu().contiguous()
    place = tensor.untyped_storage().data_ptr()
    if place in seen:
        return tensor.clone()
    seen.add(place)
    return tensor


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the ``model.safetensors`` that a release of these weights holds."""
    return hashlib.sha256(serialize(weights)).hexdigest()


def check_writable(out: Path, *, needed: int = 0) -> None:
    """Find out before long work whether a release can be written to ``out``; leaves nothing behind.

    Args:
        out: the release folder to be.
        needed: bytes that the release will take, if known.

    Raises:
        OutputError: there is something else in ``out``, no permission, or too little space.
    """
    with _as_output_error(out):
        _refuse_foreign(out)
        place = out.absolute().parent
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryDirectory(prefix=".phard-", dir=place):
            free = shutil.disk_usage(place).free
    if free < needed:
        problem = f"{out} needs {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free."
        raise OutputError(problem, advice=_ADVICE[errno.ENOSPC])


def write_release(
    out: Path,
    *,
    report: Report,
    verdict: Verdict,
    weights: Mapping[str, Tensor],
    source_folder: Path,
    gallery: Sequence[GalleryRow] = (),
    model_name: str | None = None,
    library_name: str = "transformers",
) -> Path:
    """Write a release folder, in place of a former release if there is one.

    Args:
        out: the folder; its name must be free, empty, or hold a former release.
        report: about these very weights: the hardened classifier, or the only one.
        verdict: what the policy says about the report.
        weights: the state dict of the checkpoint's own architecture.
        source_folder: the pulled checkpoint, for its config, processor, license and card.
        gallery: triggers to show.
        model_name: repository id for the card; by default the folder's name.
        library_name: what loads the model: "transformers" or "timm".

    Returns:
        The folder.

    Raises:
        ReportError: the report is about other weights.
        CheckpointError: the source folder has no config, or changed since it was pulled.
        OutputError: the folder cannot be written, or holds something else. What was in it stays.
    """
    out = out.absolute()
    blob = serialize(weights)
    _refuse_other_weights(report, hashlib.sha256(blob).hexdigest())
    plots = _plots(report, gallery)
    files = {**_copied(source_folder, report), WEIGHTS_NAME: blob}
    card = render_card(
        report,
        verdict,
        model_name=model_name or out.name,
        base_card=_base_card(source_folder),
        library_name=library_name,
        plots=tuple(plots),
    )
    files |= {CARD_NAME: card.encode(), REPORT_NAME: report.to_json().encode()}
    with _as_output_error(out):
        _refuse_foreign(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with _beside(out) as folder:
            for path, content in files.items():
                _write(folder / path, content)
            for path, draw in plots.items():
                _write(folder / path, _png(draw()))
            _sync_folder(folder / "plots")
            _sync_folder(folder)
            _swap(folder, out)
    return out


def _refuse_other_weights(report: Report, found: str) -> None:
    """A release whose report is about other weights would vouch for what nobody measured."""
    measured = (report.after or report.before).weights_sha256
    if found != measured:
        raise ReportError(
            f"The report is about weights {measured[:12]}, but these are {found[:12]}.",
            advice="Measure the weights that you release.",
        )


def _copied(source: Path, report: Report) -> dict[str, bytes]:
    """Small files of the checkpoint that go along, checked against the hashes taken when it was pulled."""
    try:
        paths = sorted({path for pattern in _COPIED for path in source.glob(pattern) if path.is_file()})
        files = {path.name: path.read_bytes() for path in paths if path.stat().st_size <= _LARGEST_COPY}
    except OSError as error:
        raise CheckpointError(f"Cannot read {source}: {error.strerror}.", advice="Pull the model again.") from error
    if "config.json" not in files:
        raise CheckpointError(f"{source} has no config.json.", advice="Pull the model again.")
    for name, content in files.items():
        _refuse_changed(report, source / name, hashlib.sha256(content).hexdigest(), advice="Pull the model again.")
    return files


def _refuse_changed(report: Report, path: Path, found: str, *, advice: str) -> None:
    """What the report's source had under this name is what must lie here, if the source had it."""
    if report.source.files.get(path.name, found) != found:
        raise CheckpointError(f"{path} has changed since it was pulled.", advice=advice)


def _base_card(source: Path) -> str | None:
    """The text of the checkpoint's own card, if it has one that can be read."""
    try:
        return (source / CARD_NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _plots(report: Report, gallery: Sequence[GalleryRow]) -> dict[str, Callable[[], Figure]]:
    """How each plot is drawn that has something to show."""
    plots: dict[str, Callable[[], Figure]] = {"plots/distances.png": lambda: distance_maps(report)}
    if gallery:
        plots["plots/triggers.png"] = lambda: trigger_gallery(gallery)
    if report.hardening and report.hardening.curve:
        plots["plots/training.png"] = lambda: training_curves(report)
    return plots


def _png(figure: Figure) -> bytes:
    """A figure as PNG, without the version of matplotlib in it, so that equal plots are equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A new folder next to ``out``; whatever happens, it is not left behind under its own name."""
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.new")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, out: Path) -> None:
    """Put ``folder`` in the place of ``out``, or leave ``out`` as it was."""
    former = folder.with_suffix(".old")
    if out.exists():
        out.rename(former)
    try:
        folder.rename(out)
    except BaseException:
        if former.exists():
            former.rename(out)
        raise
    _sync_folder(out.parent)
    shutil.rmtree(former, ignore_errors=True)


def _refuse_foreign(out: Path) -> None:
    """Replace nothing but a former release or an empty folder."""
    if not out.exists() or (out / REPORT_NAME).is_file():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file.", advice="Give the name of a folder.")
    if any(out.iterdir()):
        raise OutputError(f"{out} holds files that are no release.", advice="Give a new or an empty folder.")


@contextmanager
def _as_output_error(out: Path) -> Iterator[None]:
    """Say what to do about a disk that does not take the release."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Choose a folder that you may write to.")
        raise OutputError(f"Cannot write {out}: {error.strerror or error}.", advice=advice) from error
