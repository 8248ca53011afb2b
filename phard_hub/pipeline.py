"""The whole job in one function: pull, audit, load, measure, harden, evaluate, gate, release."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import is_initialized
from pydantic import Field

from phard_hub.auditing import audit
from phard_hub.defenses.base import hardening
from phard_hub.errors import OutputError
from phard_hub.evaluation.threats import Threat, evaluate
from phard_hub.files import discard
from phard_hub.hardware import has_fast_bf16
from phard_hub.hub.pull import pull
from phard_hub.hub.snapshot import Audit, Snapshot
from phard_hub.images import LabelledImages, load_images
from phard_hub.job import Job, Progress, silent
from phard_hub.models.classifier import Classifier
from phard_hub.models.loading import load
from phard_hub.presets import DEFAULT, Preset
from phard_hub.release.release import check_writable, weights_sha256, write_release
from phard_hub.report.gate import Verdict, gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import SCHEMA_VERSION, TESTED_ON, Environment, Hardening, Report, Source, State
from phard_hub.report.views.plots import GalleryRow
from phard_hub.report.wording import printable
from phard_hub.settings import Seed, settings
from phard_hub.training.guard import Guard
from phard_hub.triggers.search import Measurement, measure

LIMITS = (
    "Distances are upper bounds found by a search: a stronger search can find smaller triggers.",
    "Pairs that the search did not reach have no distance and are in no mean.",
    (
        "Hardening changes weights only. It does not reach backdoors in code or in the image processor, nor those "
        "planted cryptographically, which no test of the weights can show."
    ),
    "The numbers hold for the images, attacks and seeds named here; they do not certify the model.",
)

_LONGEST_NAME = 200
"""Characters of a name in a report."""


@settings
class DataOptions:
    """Which images to use and how to read them; see `phard_hub.images.load_images`.

    Attributes:
        images: data set to measure on or to harden with.
        test_images: data set that is never trained on; without it a fifth of ``images`` is kept apart.
        split: of ``images``.
        test_split: of ``test_images``.
        image_column: found by its type if None.
        label_column: found by its type if None.
        max_images: balanced choice of at most so many of each data set.
    """

    images: str
    test_images: str | None = None
    split: str | None = None
    test_split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    max_images: Annotated[int, Field(ge=8)] | None = 50_000


@dataclass(frozen=True)
class Data:
    """Images by what they are for: ``train`` hardens, ``validation`` guards, ``test`` is reported."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    name: str


@dataclass(frozen=True)
class Outcome:
    """What a run ends with."""

    report: Report
    verdict_before: Verdict
    verdict: Verdict
    release: Path


@settings
class Settings:
    """How the job is done.

    Attributes:
        preset: how hard to search and how long to harden.
        policy: what the gate asks for.
        seed: of everything that is drawn.
        threats: known triggers to evaluate beside the search.
        reference: a classifier without these triggers.
        upstream: the model that this one was made from; by default the one that its card names.
        allow: fields of the config that are known to differ from the upstream's.
    """

    preset: Preset = DEFAULT
    policy: Policy = field(default_factory=Policy)
    seed: Seed = 0
    threats: Sequence[Threat] = ()
    reference: Classifier | None = None
    upstream: str | None = None
    allow: Sequence[str] = ()


def run(
    repo: str,
    data: DataOptions,
    out: Path,
    settings: Settings | None = None,
    *,
    revision: str | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Do the whole job and write the release folder.

    A run that was interrupted or killed continues from its last checkpoint when it is called again with
    the same arguments, and ends with the same weights.

    Args:
        repo: Hub id or local folder.
        data: which images to use.
        out: the release folder; a former release there is replaced at the end, nothing else ever is.
        settings: how the job is done.
        revision: branch, tag or commit of a Hub id.
        accelerator: of accelerate; by default one that uses what the machine has.
        progress: told what is being done.

    Raises:
        PhardError: see `phard_hub.errors`.
    """
    settings = settings or Settings()
    check_writable(out)
    accelerator = accelerator or default_accelerator()
    audited = audit(pull(repo, revision), settings.upstream, allow=settings.allow)
    classifier = load(audited).to(accelerator.device)
    images = load_data(classifier, data, settings.seed, progress)
    before, found = assess(classifier, images.test, settings, progress)
    work = _work_folder(out, before.weights_sha256, data, settings)
    job = Job(accelerator=accelerator, seed=settings.seed, folder=work, progress=progress)
    guard = Guard.of(classifier, images.validation, accelerator.device)
    defense = settings.preset.defense
    try:
        made = defense.harden(classifier, images.train, job.part("hardening"), guard)
    except OutputError:  # where there is no room for a checkpoint, nothing is left of it
        with suppress(OSError):
            work.rmdir()
        raise
    after, found_after = assess(made.classifier, images.test, settings, progress)
    record = hardening(defense, made.phases, images.train, job)
    report = describe(audited, images, accelerator, before=before, after=after, hardening=record)
    verdict = gate(report, settings.policy)

    def release() -> None:
        write_release(
            out,
            report=report,
            verdict=verdict,
            weights=made.classifier.weights(),
            source_folder=audited.snapshot.folder,
            gallery=gallery(images.test, found, found_after),
            library_name=type(made.classifier.network).__module__.partition(".")[0],
        )
        discard(work)

    job.first(release)
    return Outcome(report, gate(report, settings.policy, stage="before"), verdict, out)


def measure_only(
    repo: str,
    data: DataOptions,
    settings: Settings | None = None,
    *,
    revision: str | None = None,
    accelerator: Accelerator | None = None,
    progress: Progress = silent,
) -> Report:
    """Pull, audit, load and measure: the first half of `run`, with the same arguments."""
    settings = settings or Settings()
    accelerator = accelerator or default_accelerator()
    audited = audit(pull(repo, revision), settings.upstream, allow=settings.allow)
    classifier = load(audited).to(accelerator.device)
    images = load_data(classifier, data, settings.seed, progress)
    before, _ = assess(classifier, images.test, settings, progress)
    return describe(audited, images, accelerator, before=before)


def default_accelerator() -> Accelerator:
    """What the machine has, in bf16 where that is fast; a process that has an accelerator keeps its precision."""
    if is_initialized():
        return Accelerator()
    return Accelerator(mixed_precision="bf16" if has_fast_bf16(PartialState().device) else "no")


def load_data(classifier: Classifier, data: DataOptions, seed: int, progress: Progress = silent) -> Data:
    """Load the images on the classifier's canvas and divide them by purpose.

    The guard's validation images are a tenth of the test images where those are given, for a checkpoint
    knows its own training images by heart; otherwise a tenth of all. They are left out of the other two.
    """
    train = _load(classifier, data, data.images, data.split, seed, progress)
    name = public_name(data.images)
    if data.test_images is None:
        train, test = train.split(0.3, seed)
    else:
        test = _load(classifier, data, data.test_images, data.test_split, seed, progress)
        name = f"{name}{TESTED_ON}{public_name(data.test_images)}"
    test, validation = test.split(1 / 10 if data.test_images else 1 / 3, seed)
    return Data(train, validation, test, name)


def public_name(place: str) -> str:
    """A Hub id as it is, and of a path or a pattern of paths the last part only, because reports are published.

    A name on the disk may hold what no report can: line breaks, escape codes, and bytes that are no UTF-8.
    """
    path = Path(os.path.expanduser(place))  # noqa: PTH111 - which knows every name
    if os.path.exists(path):  # noqa: PTH110
        return printable(path.resolve().name, _LONGEST_NAME)
    return printable(path.name if any(sign in place for sign in "*?[") else place, _LONGEST_NAME)


def _load(
    classifier: Classifier, data: DataOptions, dataset: str, split: str | None, seed: int, progress: Progress
) -> LabelledImages:
    return load_images(
        dataset,
        labels=classifier.labels,
        image_size=classifier.image_size,
        channels=classifier.channels,
        split=split,
        image_column=data.image_column,
        label_column=data.label_column,
        max_images=data.max_images,
        resample=classifier.resize.resample if classifier.resize else "bilinear",
        stretch=classifier.resize.stretches if classifier.resize else False,
        seed=seed,
        progress=partial(progress, "loading images"),
    )


def assess(
    classifier: Classifier, images: LabelledImages, settings: Settings, progress: Progress = silent
) -> tuple[State, Measurement]:
    """Everything that is measured on one classifier, before or after hardening, and the triggers found."""
    preset = settings.preset.seeded(settings.seed)
    found = measure(classifier, images, preset.search, progress=progress)
    seen = evaluate(
        classifier, images, settings.threats, pgd=preset.pgd, reference=settings.reference, progress=progress
    )
    state = State(weights_sha256=weights_sha256(classifier.weights()), evaluation=seen, distances=found.distances)
    return state, found


def describe(
    audited: Audit,
    images: Data,
    accelerator: Accelerator,
    *,
    before: State,
    after: State | None = None,
    hardening: Hardening | None = None,
) -> Report:
    """The report of a run."""
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC),
        source=source_of(audited.snapshot),
        dataset=images.name,
        findings=audited.findings,
        before=before,
        after=after,
        hardening=hardening,
        environment=environment(accelerator),
        limits=LIMITS,
    )


def source_of(snapshot: Snapshot) -> Source:
    """Where a model came from; of a folder its name only, for reports are published."""
    return Source(
        repo=snapshot.repo if snapshot.commit else public_name(snapshot.repo),
        commit=snapshot.commit,
        files=snapshot.files,
        license=snapshot.license,
    )


def environment(accelerator: Accelerator) -> Environment:
    """What numbers are measured with here."""
    packages = ["phard-hub", "torch", "transformers", "accelerate", "datasets", "huggingface-hub"]
    packages += [name for name in ("timm",) if name in sys.modules]  # imported for its own models only
    return Environment(
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        device=_device_name(accelerator.device),
        processes=accelerator.num_processes,
        precision="bf16" if has_fast_bf16(accelerator.device) else "fp32",
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def gallery(images: LabelledImages, before: Measurement, after: Measurement, rows: int = 4) -> list[GalleryRow]:
    """The triggers of the closest pairs before hardening, and those of the same pairs after it."""
    pairs = before.distances.pairs
    closest = sorted(range(len(pairs)), key=lambda row: pairs[row].distance or float("inf"))[:rows]
    return [
        _gallery_row(images, measurement, row, stage)
        for row in closest
        for stage, measurement in (("before", before), ("after", after))
    ]


def _gallery_row(images: LabelledImages, measurement: Measurement, row: int, stage: str) -> GalleryRow:
    pair = measurement.distances.pairs[row]
    first = 0 if pair.source is None else int((images.labels == pair.source).nonzero()[0])
    pixels, _ = images.batch([first])
    stamped = measurement.bank.cpu().trigger(row)(pixels)
    size = "not reached" if pair.rms is None else f"{pair.rms:.1f} grey levels"
    source = "all" if pair.source is None else images.names[pair.source]
    return GalleryRow(
        caption=f"{source} to {images.names[pair.target]}, {stage}: {size}",
        image=pixels[0].permute(1, 2, 0).numpy(),
        stamped=stamped[0].permute(1, 2, 0).numpy(),
    )


def _work_folder(out: Path, weights: str, data: DataOptions, settings: Settings) -> Path:
    """Where the state of this very job is kept: other weights, data or settings have another folder."""
    job = f"{weights} {data} {settings.preset} {settings.seed}"
    return out.with_name(f".{out.name}.{hashlib.sha256(job.encode()).hexdigest()[:12]}.run")
