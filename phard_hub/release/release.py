"""The release folder: the released weights with everything needed to load, judge and push them.

    config.json, *processor_config.json    byte for byte as they were pulled
    LICENSE*, NOTICE*                      likewise
    model.safetensors                      the released weights
    README.md                              the model card
    phard_report.json                      every number
    model.sig                              the signature, where there is one
    plots/*.png                            distance maps, triggers, training curves

A release appears as a whole or not at all (see `phard_hub.disk.atomic`). All that is copied into one, and all that is
pushed of one, are regular files in the folder: what a link leads to is not its to give away.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from phard_hub.disk.atomic import NO_SPACE, as_output_error, check_folder, new_folder, restore
from phard_hub.disk.reading import read_regular
from phard_hub.errors import CheckpointError, OutputError, ReportError
from phard_hub.hub.download import LARGEST_CARD
from phard_hub.hub.snapshot import LARGEST_JSON
from phard_hub.models.tensors import serialize
from phard_hub.release.card import PLOTS, library_of, render_card
from phard_hub.release.folder import file_sha256
from phard_hub.release.public import public
from phard_hub.release.signing import checked
from phard_hub.report.deployed import CARD_NAME, SIGNATURE_NAME, WEIGHTS_NAME, Deployed, is_copied, is_signed
from phard_hub.report.gate import Verdict, gate, policy_for
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from phard_hub.report.views.plots import GalleryRow

_OTHERS = (WEIGHTS_NAME, CARD_NAME, REPORT_NAME, SIGNATURE_NAME)
_LARGEST = 64 * 2**20  # bytes of a file that is read as a whole, which weights never are
_DPI = 130


@dataclass(frozen=True)
class Release:
    """A release folder whose files are what its report says.

    Attributes:
        folder: where it lies.
        report: about the weights in it.
        files: the files of it, by their path in a repository; nothing else that lies in the folder.
        hashes: the sha256 of each of them.
    """

    folder: Path
    report: Report
    files: Mapping[str, Path]
    hashes: Mapping[str, str]

    def verdict(self, policy: Policy | None = None) -> Verdict:
        """What a policy says of these files."""
        deployed = Deployed(
            place=self.folder.name, files={name: found for name, found in self.hashes.items() if is_signed(name)}
        )
        signature = self.read(SIGNATURE_NAME) if SIGNATURE_NAME in self.files else None
        limits = policy or policy_for(self.report)
        return gate(self.report, limits, deployed=checked(deployed, signature, limits))

    def read(self, path: str) -> bytes:
        """The bytes of one of the files, which are still those that were hashed.

        Raises:
            ReportError: it cannot be read, or has changed.
        """
        try:
            content = read_regular(self.folder, path, _LARGEST)
        except OSError as error:
            raise _unreadable(self.folder / path, error) from error
        if hashlib.sha256(content).hexdigest() != self.hashes[path]:
            raise ReportError(f"{self.folder / path} changed while it was read.", advice="Give the command again.")
        return content

    def card(
        self,
        verdict: Verdict,
        *,
        model_name: str,
        target_card: str | None = None,
        no_gate: str | None = None,
        space: str | None = None,
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
            space=space,
        )


def read_release(folder: Path) -> Release:
    """Read a release, and check that nothing in it changed since it was written.

    Raises:
        ReportError: there is no report or no weights file, or the report is about other weights.
        CheckpointError: the config or the image processor is not the one that was pulled.
    """
    restore(folder)
    report = Report.read(folder / REPORT_NAME)
    hashes = {name: _hash(folder, name) for name in _released(folder)}
    for name in ("config.json", WEIGHTS_NAME):
        if name not in hashes:
            raise ReportError(f"{folder} has no {name}.", advice="Give a folder that `phard harden` wrote.")
    _refuse_other_weights(report, hashes[WEIGHTS_NAME])
    for name, found in hashes.items():
        if name in report.source.files and name not in (WEIGHTS_NAME, CARD_NAME):
            _refuse_changed(report, folder / name, found, advice="Write the release again with `phard harden`.")
    return Release(folder, report, {name: folder / name for name in hashes}, hashes)


def _released(folder: Path) -> list[str]:
    """The files of a release that are there, in order; other files in the folder are not its."""
    there = [path.name for path in folder.iterdir() if is_copied(path.name) and not stat.S_ISDIR(path.lstat().st_mode)]
    there += [name for name in (*_OTHERS, *PLOTS) if os.path.lexists(folder / name)]
    return sorted(there)


def _hash(folder: Path, name: str) -> str:
    try:
        return file_sha256(folder, name)
    except OSError as error:
        raise _unreadable(folder / name, error) from error


def _unreadable(path: Path, error: OSError) -> ReportError:
    return ReportError(f"Cannot read {path}: {error.strerror}.", advice="Write the release again with `phard harden`.")


def card_of(path: Path, policy: Policy | None = None, *, model_name: str | None = None) -> str:
    """The card of a release folder; of a report alone, the card without plots and without the base's text."""
    if path.is_dir():
        release = read_release(path)
        return release.card(release.verdict(policy), model_name=model_name or path.resolve().name)
    report = Report.read(path)
    name = model_name or Path(report.source.repo).name + ("-hardened" if report.after else "")
    return render_card(report, gate(report, policy), model_name=name, plots=())


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
    with as_output_error(out):
        restore(out.absolute())
        _refuse_foreign(out)
        place = out.absolute().parent
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    if free < needed:
        problem = f"{out} needs {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free."
        raise OutputError(problem, advice=NO_SPACE)


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
    out, report = out.absolute(), public(report)
    blob = serialize(weights)
    _refuse_other_weights(report, hashlib.sha256(blob).hexdigest())
    plots = _plots(report, gallery)
    files = {**copied(source_folder, report.source.files), WEIGHTS_NAME: blob}
    card = render_card(
        report,
        verdict,
        model_name=model_name or out.name,
        base_card=_base_card(source_folder),
        library_name=library_name,
        plots=tuple(plots),
    )
    files |= {CARD_NAME: card.encode(), REPORT_NAME: report.to_json().encode()}
    with as_output_error(out):
        _refuse_foreign(out)
        with new_folder(out) as folder:
            (folder / "plots").mkdir()
            for path, content in files.items():
                (folder / path).write_bytes(content)
            for path, draw in plots.items():
                (folder / path).write_bytes(_png(draw()))
    return out


def _refuse_other_weights(report: Report, found: str) -> None:
    """A release whose report is about other weights would vouch for what nobody measured."""
    measured = (report.after or report.before).weights_sha256
    if found != measured:
        raise ReportError(
            f"The report is about weights {measured[:12]}, but these are {found[:12]}.",
            advice="Measure the weights that you release.",
        )


def copied(source: Path, hashes: Mapping[str, str]) -> dict[str, bytes]:
    """Small files of a checkpoint that go along to what is made of it.

    Args:
        source: folder of the pulled checkpoint.
        hashes: the sha256 of each of its files when it was pulled; no other file is looked at.

    Raises:
        CheckpointError: there is no config, or a file is no regular one, far too large, or changed.
    """
    advice = "Pull the model again."
    if "config.json" not in hashes:
        raise CheckpointError(f"{source} has no config.json.", advice=advice)
    files = {}
    for name in filter(is_copied, hashes):
        try:
            files[name] = read_regular(source, name, LARGEST_JSON)
        except OSError as error:
            raise CheckpointError(f"Cannot read {source / name}: {error.strerror}.", advice=advice) from error
        if hashlib.sha256(files[name]).hexdigest() != hashes[name]:
            raise CheckpointError(f"{source / name} has changed since it was pulled.", advice=advice)
    return files


def _refuse_changed(report: Report, path: Path, found: str, *, advice: str) -> None:
    """What the report's source had under this name is what must lie here, if the source had it."""
    if report.source.files.get(path.name, found) != found:
        raise CheckpointError(f"{path} has changed since it was pulled.", advice=advice)


def _base_card(source: Path) -> str | None:
    """The text of the checkpoint's own card, if it has one that is a file of the folder and no book."""
    try:
        return read_regular(source, CARD_NAME, LARGEST_CARD).decode(errors="replace")
    except OSError:
        return None


def _plots(report: Report, gallery: Sequence[GalleryRow]) -> dict[str, Callable[[], Figure]]:
    """How each plot is drawn that has something to show."""
    from phard_hub.report.views.plots import distance_maps, success_curves, training_curves, trigger_gallery

    plots: dict[str, Callable[[], Figure]] = {"plots/distances.png": lambda: distance_maps(report)}
    if report.before.distances.universal or report.before.distances.kinds:
        plots["plots/success.png"] = lambda: success_curves(report)
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


def _refuse_foreign(out: Path) -> None:
    """Replace nothing but a former release or an empty folder."""
    check_folder(out)
    if out.exists() and not (out / REPORT_NAME).is_file() and any(out.iterdir()):
        raise OutputError(f"{out} holds files that are no release.", advice="Give a new or an empty folder.")
