"""The whole job in one function: pull, audit, load, measure, harden, evaluate, gate, release."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from phard_hub.attacks import Attack
from phard_hub.attacks.planted import BACKDOOR_SCHEMA, Backdoor, card, write_planted
from phard_hub.auditing import pull_and_audit
from phard_hub.auditing.module import require_alive
from phard_hub.budget import Budget
from phard_hub.defenses import HeadReset, NoiseTraining, Smoothing
from phard_hub.defenses.base import Hardened, hardening
from phard_hub.defenses.immunizer import measure_votes
from phard_hub.disk.atomic import discard, restore
from phard_hub.errors import OutputError, PhardError
from phard_hub.evaluation.sizes import trigger_size
from phard_hub.evaluation.threats import Threat, evaluate, require_better_than_chance
from phard_hub.hardware import default_accelerator
from phard_hub.hub.snapshot import Audit
from phard_hub.images import LabelledImages
from phard_hub.images.data import Data, DataOptions, load_data
from phard_hub.job import Job, Progress, silent
from phard_hub.models.classifier import Classifier, class_number
from phard_hub.models.loading import load
from phard_hub.models.tensors import serialize
from phard_hub.planning import plan
from phard_hub.presets import DEFAULT, Preset
from phard_hub.provenance import environment, source_of
from phard_hub.release.release import check_writable, copied, read_release, weights_sha256, write_release
from phard_hub.report.deployed import CARD_NAME, WEIGHTS_NAME
from phard_hub.report.distances import ClassDistances
from phard_hub.report.gate import Verdict, gate
from phard_hub.report.limits import limits
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, SCHEMA_VERSION, Hardening, Report, State
from phard_hub.report.trial import Judgement
from phard_hub.settings import Seed, settings
from phard_hub.training.crossvalidation import PartCount, cross_validate, divided
from phard_hub.training.guard import Guard
from phard_hub.triggers.gallery import gallery
from phard_hub.triggers.kept import keep, kept
from phard_hub.triggers.search import Measurement, measure


@dataclass(frozen=True)
class Outcome:
    """What a run ends with; ``is_new`` unless the same job had ended before."""

    report: Report
    verdict_before: Verdict
    verdict: Verdict
    release: Path
    is_new: bool = True


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
        reset_head: whether another head is learned before anything else is done.
        smoothing: how is voted under noise, where that is to be measured.
        noise_training: whether training under the noise of the vote comes last.
        even_at_chance: whether a model is hardened that is no better than guessing.
        overwrite: whether the release of another job may be replaced.
        budget: what the job may cost.
        strict_accuracy: whether hardening goes only as far as the validation images show that accuracy is kept.
        cross_validate: in how many parts the images are divided to see what hardening costs in accuracy, at the price
            of as many hardenings more; 0 for not at all.
    """

    preset: Preset = DEFAULT
    policy: Policy = field(default_factory=Policy)
    seed: Seed = 0
    threats: Sequence[Threat] = ()
    reference: Classifier | None = None
    upstream: str | None = None
    allow: Sequence[str] = ()
    reset_head: bool = False
    smoothing: Smoothing | None = None
    noise_training: bool = False
    even_at_chance: bool = False
    overwrite: bool = False
    budget: Budget = Budget()
    strict_accuracy: bool = False
    cross_validate: PartCount = 0


def open_model(repo: str, revision: str | None = None) -> Classifier:
    """Pull, audit and load a model: the three steps that make files into a classifier.

    Args:
        repo: Hub id, also as ``org/model@revision``, or a local folder.
        revision: branch, tag or commit of a Hub id.

    Raises:
        PhardError: it cannot be pulled, the audit refuses it, or it cannot be loaded; see `phard_hub.errors`.
    """
    return load(pull_and_audit(repo, revision))


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
    the same arguments, and ends with the same weights. One that has ended is not done again.

    Args:
        repo: Hub id or local folder.
        data: which images to use.
        out: the release folder; a release of another job there is replaced only if the settings say so.
        settings: how the job is done.
        revision: branch, tag or commit of a Hub id.
        accelerator: of accelerate; by default one that uses what the machine has.
        progress: called with what is being done.

    Raises:
        PhardError: see `phard_hub.errors`.
    """
    settings = settings or Settings()
    check_writable(out)
    accelerator = accelerator or default_accelerator()
    audited = pull_and_audit(repo, revision, settings.upstream, allow=settings.allow)
    classifier = load(audited).to(accelerator.device)
    name = _job_name(classifier, data, settings)
    work = out.with_name(f".{out.name}.{name[:12]}.run")
    if ended := _ended(out, name, settings):
        discard(work)  # a kill may have left some of it
        return ended
    job = Job(accelerator=accelerator, seed=settings.seed, folder=work, progress=progress)
    images = load_data(classifier, data, settings.seed, progress)
    audited = require_alive(audited, classifier, images.test)
    parts = divided(images.train, settings.cross_validate, settings.seed)
    trainings = 1 + settings.cross_validate
    fitted = plan(settings.preset, classifier, images.test, job, settings.budget, trainings=trainings)
    settings = replace(settings, preset=fitted.preset)
    measuring = job.part("measured")
    before, found = assess(classifier, images.test, settings, measuring, refuse_chance=not settings.even_at_chance)
    guard = Guard.of(classifier, images.validation, accelerator.device, strict=settings.strict_accuracy)
    train = partial(_hardened, classifier, settings, guard)
    seen = cross_validate(lambda *each: train(*each).classifier, classifier, images.train, parts, job)
    made = train(images.train, job)
    unkept = replace(job, folder=None)
    after, found_after = assess(made.classifier, images.test, settings, unkept, beside=before.distances)
    record = hardening(settings.preset.defense, made.phases, images.train, job, seen)
    report = describe(
        audited, images, accelerator, before=before, after=after, hardening=record, given_up=fitted.given_up
    )
    report = report.model_copy(update={"job": name})
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


def _hardened(classifier: Classifier, settings: Settings, guard: Guard, images: LabelledImages, job: Job) -> Hardened:
    """What the preset's defense makes of the classifier, or of a copy with another head, and training under noise."""
    made = Hardened(classifier, ())
    if settings.reset_head:
        made = HeadReset().harden(classifier, images, job.part("head"), guard)
    last = settings.preset.defense.harden(made.classifier, images, job.part("hardening"), guard)
    phases = made.phases + last.phases
    if settings.smoothing and settings.noise_training:
        steps = settings.preset.defense.bank.schedule.steps
        noise = NoiseTraining(sigma=settings.smoothing.sigma).lasting(steps)
        last = noise.harden(last.classifier, images, job.part("noise"), guard)
        phases += last.phases
    return Hardened(last.classifier, phases)


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
    audited = pull_and_audit(repo, revision, settings.upstream, allow=settings.allow)
    classifier = load(audited).to(accelerator.device)
    images = load_data(classifier, data, settings.seed, progress, only_test=True)
    audited = require_alive(audited, classifier, images.test)
    job = Job(accelerator=accelerator, seed=settings.seed, progress=progress)
    fitted = plan(settings.preset, classifier, images.test, job, settings.budget)
    before, _ = assess(classifier, images.test, replace(settings, preset=fitted.preset), job)
    return describe(audited, images, accelerator, before=before, given_up=fitted.given_up)


def plant(
    repo: str,
    data: DataOptions,
    out: Path,
    attack: Attack,
    target: str,
    job: Job | None = None,
    *,
    revision: str | None = None,
) -> Backdoor:
    """Pull, audit and load a model, plant a backdoor in a copy, and write its folder; the input is untouched.

    A backdoor that does not work is no evidence of anything: what hardening "removes" was never there. It is written
    all the same, and does not count (see `Backdoor.failures`).

    Args:
        repo: Hub id or local folder.
        data: which images to poison, and which to judge with.
        out: the folder to be, new or empty.
        attack: what is planted, and how.
        target: the class that the trigger is meant to produce, by its name or its number.
        job: its seed is that of weights drawn anew and of the batches.
        revision: branch, tag or commit of a Hub id.

    Raises:
        PhardError: see `phard_hub.errors`.
    """
    check_writable(out)
    started, job = time.perf_counter(), job or Job()
    device, progress = job.accelerator.device, job.progress
    audited = pull_and_audit(repo, revision)
    original = load(audited).to(device)
    number = class_number(target, original.labels)
    images = load_data(original, data, job.seed, progress)
    planted = attack.plant(original, images.train, number, job)
    threat = [Threat(name=attack.name, trigger=planted.attack, target=number)]
    backdoor = Backdoor(
        schema_version=BACKDOOR_SCHEMA,
        attack=attack.name,
        parameters=attack.parameters(),
        target=number,
        target_name=original.labels[number],
        seed=job.seed,
        source=source_of(audited.snapshot),
        dataset=images.name,
        matched=images.matched,
        original=Judgement(evaluation=evaluate(original, images.test, threat, progress=progress)),
        planted=Judgement(evaluation=evaluate(planted.classifier, images.test, threat, progress=progress)),
        size=trigger_size(planted.attack, images.test, device),
        seconds=time.perf_counter() - started,
    )

    def write() -> None:
        model = copied(audited.snapshot.folder, audited.snapshot.files)
        model |= {WEIGHTS_NAME: serialize(planted.classifier.weights()), CARD_NAME: card(backdoor).encode()}
        write_planted(out, backdoor, planted.attack, model)

    job.first(write)
    return backdoor


def assess(
    classifier: Classifier,
    images: LabelledImages,
    settings: Settings,
    job: Job,
    *,
    beside: ClassDistances | None = None,
    refuse_chance: bool = False,
) -> tuple[State, Measurement]:
    """Everything that is measured on one classifier, before or after hardening, and the triggers found.

    Class distances take longest, so they come last: where the job has a folder, they are kept, and not searched again
    when it continues. The pairs of another measurement are measured as well, so that the two can be compared.

    Raises:
        NotEvaluatedError: the classifier is no better than guessing, and that is to be refused.
    """
    preset = settings.preset
    seen = evaluate(
        classifier,
        images,
        settings.threats,
        pgd=preset.pgd,
        reference=settings.reference,
        seed=job.seed,
        progress=job.progress,
    )
    if refuse_chance:
        require_better_than_chance(seen.accuracy, len(images.classes))
    found = _measured(classifier, images, preset, job, beside)
    votes = settings.smoothing
    state = State(
        weights_sha256=weights_sha256(classifier.weights()),
        evaluation=seen,
        distances=found.distances,
        smoothed=None if votes is None else measure_votes(classifier, images, votes, job),
    )
    return state, found


def _measured(
    classifier: Classifier, images: LabelledImages, preset: Preset, job: Job, beside: ClassDistances | None
) -> Measurement:
    place = job.state
    if place and job.first(lambda: os.path.lexists(place)):
        return kept(place, classifier.labels, preset.search.parts)
    found = measure(classifier, images, preset.search, job, beside=beside)
    if place:
        job.first(lambda: keep(found, place))
    return found


def describe(
    audited: Audit,
    images: Data,
    accelerator: Accelerator,
    *,
    before: State,
    after: State | None = None,
    hardening: Hardening | None = None,
    given_up: str = "",
) -> Report:
    """The report of a run; ``given_up`` is what a budget left out of it."""
    more = (images.overlap, f"The budget left out {given_up}." if given_up else "")
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC),
        source=source_of(audited.snapshot),
        dataset=images.name,
        matched=images.matched,
        skipped=images.skipped,
        findings=audited.findings,
        before=before,
        after=after,
        hardening=hardening,
        environment=environment(accelerator),
        limits=limits(before.distances, hardening, voted=before.smoothed is not None, more=more),
    )


def _job_name(classifier: Classifier, data: DataOptions, settings: Settings) -> str:
    """A name for this very job: other weights, images or settings have another one."""
    threats = [(threat.name, threat.target) for threat in settings.threats]
    weights = weights_sha256(classifier.weights())
    chosen = f"{settings.policy} {settings.strict_accuracy} {settings.reset_head} {settings.budget}"
    chosen += f" {settings.cross_validate}" if settings.cross_validate else ""
    chosen += f" {settings.smoothing} {settings.noise_training}" if settings.smoothing else ""
    job = f"{weights} {data} {settings.preset} {settings.seed} {threats} {chosen}"
    return hashlib.sha256(job.encode()).hexdigest()


def _ended(out: Path, name: str, settings: Settings) -> Outcome | None:
    """What this very job has ended with, if its release is there and whole; None if there is work to do.

    Raises:
        OutputError: there is a release of another job, which nobody said may be replaced.
    """
    restore(out)
    if not os.path.lexists(out / REPORT_NAME):
        return None
    report = None
    with suppress(PhardError):
        report = Report.read(out)
    if report is None or report.job != name:
        if settings.overwrite:
            return None
        advice = "Give another --out, or --overwrite to replace it."
        raise OutputError(f"{out} holds a release of another job.", advice=advice)
    try:
        read_release(out)
    except PhardError:  # it was damaged since
        return None
    before = gate(report, settings.policy, stage="before")
    return Outcome(report, before, gate(report, settings.policy), out, is_new=False)
