"""One model's way: pulled, audited, loaded, measured, hardened, pushed, and used by somebody else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from phard_hub.auditing import audit
from phard_hub.defenses.base import hardening
from phard_hub.demos.quickstart import save_images
from phard_hub.errors import CheckpointError, first_line
from phard_hub.hardware import default_accelerator
from phard_hub.hub.pull import pull
from phard_hub.images import LabelledImages, demo_images
from phard_hub.images.data import DataOptions, load_data
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.loading import load
from phard_hub.pipeline import Settings, assess, describe
from phard_hub.presets import CHEAPEST, Preset
from phard_hub.release.push import push
from phard_hub.release.release import weights_sha256, write_release
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from tests.benchmarks.architectures.clients import CLIENTS, Logits
from tests.benchmarks.architectures.table import LABELS, Architecture

STEPS = ("publish", "pull", "audit", "load", "measure", "harden", "push", "reload")
TOLERANCE = 1e-4
"""How far logits of the library alone may be from those of the hardened classifier, as a share of the largest."""


@dataclass
class Row:
    """What was seen of one model.

    Attributes:
        name: the architecture.
        family: which others it resembles.
        library: what loads it.
        steps: seconds of CPU, or what went wrong in one line; steps after that are missing.
        parameters: how many the network has.
        image: height and width of the images.
        findings: ids of what the audit noticed.
        difference: of the logits, as a share of the largest.
    """

    name: str
    family: str
    library: str
    steps: dict[str, float | str] = field(default_factory=dict)
    parameters: int | None = None
    image: tuple[int, int] | None = None
    findings: list[str] = field(default_factory=list)
    difference: float | None = None

    @property
    def arrived(self) -> bool:
        """Whether no step failed."""
        return all(isinstance(self.steps.get(step), float) for step in STEPS)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note how many seconds of CPU a step takes, for others may use this machine, or why it failed."""
        started = time.process_time()
        try:
            yield
        except Exception as failure:
            self.steps[name] = f"{type(failure).__name__}: {first_line(failure)}"
            raise
        self.steps[name] = round(time.process_time() - started, 2)


def write_digits(path: Path, per_class: int = 30) -> Path:
    """Write digits of three classes as a data set, and return where."""
    digits, _ = demo_images()
    chosen = digits.take((digits.labels < len(LABELS)).nonzero().flatten()).sample(per_class)
    save_images(LabelledImages(chosen.pixels, chosen.labels, LABELS, chosen.source), path)
    return path


def travel(architecture: Architecture, digits: Path, work: Path, preset: Preset = CHEAPEST) -> Row:
    """Let one model go the whole way on the Hub of ``HF_ENDPOINT``, as far as it gets.

    Args:
        architecture: the model.
        digits: images of its classes, from `write_digits`.
        work: a folder for the release.
        preset: how much it is measured and hardened.
    """
    row = Row(architecture.name, architecture.family, architecture.library)
    try:
        _travel(row, architecture, digits, work, preset)
    except Exception:  # noqa: BLE001 - it is in the row
        return row
    return row


def _travel(row: Row, architecture: Architecture, digits: Path, work: Path, preset: Preset) -> None:
    name = re.sub(r"\W+", "-", f"{row.library} {row.name}")
    settings, accelerator = Settings(preset=preset), default_accelerator()
    with row.step("publish"):
        architecture.publish(f"me/{name}")
    with row.step("pull"):
        snapshot = pull(f"me/{name}")
    with row.step("audit"):
        audited = audit(snapshot)
        row.findings = [finding.id for finding in audited.findings]
        audited.require()
    with row.step("load"):
        classifier = load(audited).to(accelerator.device)
        row.parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
        row.image = classifier.image_size
    data = load_data(classifier, DataOptions(images=str(digits)), settings.seed)
    with row.step("measure"):
        before, _ = assess(classifier, data.test, settings, Job(seed=settings.seed))
    with row.step("harden"):
        # without images for the guard, which would take back what chance did to an accuracy of chance
        job = Job(accelerator=accelerator, seed=settings.seed)
        made = settings.preset.defense.harden(classifier, data.train, job)
        hardened, record = made.classifier, hardening(settings.preset.defense, made.phases, data.train, job)
        require_change(classifier, hardened)
    after, _ = assess(hardened, data.test, settings, Job(seed=settings.seed), beside=before.distances)
    with row.step("push"):
        report = describe(audited, data, accelerator, before=before, after=after, hardening=record)
        release = write_release(
            work / name,
            report=report,
            verdict=gate(report, Policy()),
            weights=hardened.weights(),
            source_folder=snapshot.folder,
            library_name=row.library,
        )
        pushed = push(release, f"me/{name}-hardened", no_gate="its weights are random")
    with row.step("reload"):
        again = load(audit(pull(f"me/{name}-hardened", pushed.commit)))
        if weights_sha256(again.weights()) != after.weights_sha256:
            raise CheckpointError("Other weights came back.")
        client = CLIENTS[row.library](f"me/{name}-hardened", pushed.commit)
        row.difference = logits_difference(client, hardened, data.test)
        if not row.difference <= TOLERANCE:
            raise CheckpointError(f"Logits differ by {row.difference:.1e} of the largest.")


def require_change(before: Classifier, after: Classifier) -> None:
    """Every tensor that can learn has learned, and none is broken."""
    stuck = []
    for (name, old), new in zip(before.network.named_parameters(), after.network.parameters(), strict=True):
        if not new.isfinite().all():
            raise CheckpointError(f"{name} is not finite.")
        stuck += [name] if torch.equal(old, new) else []
    if len(stuck) > len(list(before.network.parameters())) / 2:
        raise CheckpointError(f"{len(stuck)} tensors did not change, {stuck[0]} first.")


def logits_difference(client: Logits, classifier: Classifier, images: LabelledImages) -> float:
    """The largest difference of the logits of two on the same images, as a share of the largest logit."""
    pixels, _ = images.batch(range(len(images)), classifier.device)
    photos = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.pixels]
    with torch.no_grad():
        ours, theirs = classifier(pixels).cpu(), client(photos)
    return float((ours - theirs).abs().max() / theirs.abs().max())
