"""The report: one record of what was pulled, measured, hardened and seen.

Everything that people or machines look at later (card, plots, gate, tables) is a pure function of
`Report`. It holds plain numbers only and imports neither torch nor huggingface_hub, so that a deploy
runner can read it in a fraction of a second.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from phard_hub.disk.reading import read_regular
from phard_hub.errors import ReportError
from phard_hub.report.base import Count, Points, Record, Sha256, Size, unambiguous
from phard_hub.report.checks import of_evaluation, of_report, of_state, require
from phard_hub.report.distances import ClassDistances, Rate, both_reached, mean_increase
from phard_hub.report.smoothed import Smoothed
from phard_hub.report.wording import no_better_than_chance
from phard_hub.settings import Seed, Share

SCHEMA_VERSION: Literal[3] = 3
REPORT_NAME = "phard_report.json"
LARGEST_REPORT = 64 * 2**20
"""Bytes; a report about 1,000 classes has about 20 MB."""
_PROMISE = 1.0
"""Points of accuracy that hardening aims to cost at most."""
TESTED_ON = ", tested on "
"""Stands between the names of the data set to harden with and of that to test on, where these are two."""


class AttackOutcome(Record):
    """What one known trigger does to a classifier, on images that are not of its target class."""

    name: str
    target: Count
    success: Rate
    recovered: Rate = Field(description="triggered images still given their true label")
    reference: Rate | None = Field(default=None, description="success of the same trigger on a clean reference model")
    size: Size = Field(description="mean L2 norm of the trigger's change, pixels in [0, 1]")


class TriggerSize(Record):
    """The size of one trigger on n images.

    ``l2`` is the mean L2 norm of the change, pixels in [0, 1], and ``rms`` the same in grey levels (0-255) per
    pixel value. A trigger smaller than a model's distance to the target is smaller than any change that the
    search found to produce that class. ``ssim`` is the mean structural similarity (Wang et al., IEEE TIP 2004)
    of stamped images to the originals: 1 where nothing changed.
    """

    l2: Size
    rms: Size
    ssim: float
    n: Count

    def __str__(self) -> str:
        """The three numbers on one line."""
        return f"L2 {self.l2:.2f}, {self.rms:.1f} grey levels, SSIM {self.ssim:.3f} (n = {self.n})"


class RobustAccuracy(Record):
    """Accuracy under one attack."""

    attack: str
    accuracy: Rate


class Evaluation(Record):
    """Accuracy and robustness of one classifier on test images.

    ``robust_accuracy`` is that under ``robust_attack``, the strongest; ``robust_at`` is that under weaker ones.
    """

    accuracy: Rate
    robust_accuracy: Rate | None
    robust_attack: str
    robust_at: tuple[RobustAccuracy, ...] = ()
    attacks: tuple[AttackOutcome, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require(of_evaluation(self))
        return self


class Rating(Record):
    """The defense effectiveness rating of one attack with its 95 % interval, all in [0, 1]; see `evaluation`.

    1 is a backdoor that always worked and never does afterwards, at no cost; 0.5 is what doing nothing gets.
    ``n`` is the number of images behind the success rates.
    """

    value: Share
    n: Count
    low: Share
    high: Share

    def __str__(self) -> str:
        """Percent with interval."""
        return f"{100 * self.value:.2f} % [{100 * self.low:.2f}, {100 * self.high:.2f}]"


class State(Record):
    """One classifier, before or after hardening: its weights, how well it works, how far its classes are.

    ``smoothed`` is what its votes under noise come to, where somebody asked for it.
    """

    weights_sha256: Sha256
    evaluation: Evaluation
    distances: ClassDistances
    smoothed: Smoothed | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require(of_state(self))
        return self


class Finding(Record):
    """One thing that the audit noticed; an error forbids loading."""

    id: str
    severity: Literal["error", "warning", "note"]
    file: str
    evidence: str
    advice: str


class Source(Record):
    """Where the classifier came from; ``commit`` is None for a local folder."""

    repo: str
    commit: str | None = None
    files: dict[str, Sha256] = Field(default_factory=dict, description="sha256 of each file by its path")
    license: str | None = None


class TrainingPoint(Record):
    """One point of the training curves; what a training does not have is None."""

    step: Count
    loss: float
    learning_rate: Size
    bank_success: Share | None = Field(default=None, description="share of stamped images that a bank's triggers turn")
    bank_distance: Size | None = Field(default=None, description="mean L2 norm of a bank's triggers")
    validation_accuracy: Share | None = None


class Phase(Record):
    """One training of a defense: what was done, how it went, and whether its result was kept."""

    defense: str
    settings: dict[str, Any]
    forgets: bool = Field(default=False, description="whether it is meant to make a model forget planted backdoors")
    kept: bool = Field(default=True, description="whether what comes after goes on from its result")
    share: Share = Field(
        default=1.0, description="how far the result lies on the straight line from its start to its end; 1 is the end"
    )
    points_lost: Points | None = Field(
        default=None, description="points of validation accuracy lost since before the defense; None without a guard"
    )
    points_at_most: Points | None = Field(
        default=None, description="points that may have been lost, by the 95 % interval that the guard's images give"
    )
    guard_images: Count = Field(default=0, description="validation images that the guard looked at")
    curve: tuple[TrainingPoint, ...] = ()
    events: tuple[str, ...] = Field(default=(), description="what the accuracy guard did")
    sample_gradients: Count
    sample_forwards: Count
    seconds: Size


class CrossValidated(Record):
    """What hardening costs in accuracy, by hardenings that each left out a part of the images and were judged on it."""

    parts: Count
    images: Count = Field(description="that were judged, all but those of the guard")
    points_lost: Points
    points_at_most: Points = Field(description="by the upper end of the 95 % interval of the paired difference")


class Hardening(Record):
    """What was done to the classifier: the defense, its settings, and its phases, those that were refused too."""

    defense: str
    settings: dict[str, Any]
    seed: Seed
    images: Count
    phases: tuple[Phase, ...]
    cross_validated: CrossValidated | None = Field(default=None, description="None where nobody asked for it")

    @property
    def curve(self) -> tuple[TrainingPoint, ...]:
        """The curves of the last phase."""
        return self.phases[-1].curve if self.phases else ()

    @property
    def events(self) -> tuple[str, ...]:
        """What the accuracy guard did, in all phases."""
        return tuple(event for phase in self.phases for event in phase.events)

    @property
    def forgotten(self) -> bool | None:
        """Whether a phase that is meant to forget backdoors was kept; None where there was none."""
        kept = [phase.kept for phase in self.phases if phase.forgets]
        return any(kept) if kept else None

    @property
    def doubt(self) -> str:
        """By how much the promise of accuracy may be broken, as far as the images can tell; empty where it is kept."""
        if (seen := self.cross_validated) is not None:
            return (
                f"Cross-validated on {seen.images:,} images in {seen.parts} parts, hardening costs "
                f"{seen.points_lost:.1f} points of accuracy, at most {seen.points_at_most:.1f} (95 %), where it aims "
                f"at {_PROMISE:g}."
            )
        guarded = [phase for phase in self.phases if phase.kept and phase.points_at_most is not None]
        if not guarded or guarded[-1].points_at_most is None or guarded[-1].points_at_most <= _PROMISE:
            return ""
        return (
            f"The accuracy guard looked at {guarded[-1].guard_images} images: the last phase may have cost up to "
            f"{guarded[-1].points_at_most:.1f} points of accuracy (95 %), where it aims at {_PROMISE:g}."
        )

    @property
    def sample_gradients(self) -> int:
        """Images for which a gradient was computed, over all phases and processes."""
        return sum(phase.sample_gradients for phase in self.phases)

    @property
    def sample_forwards(self) -> int:
        """Images that only went forward, over all phases and processes."""
        return sum(phase.sample_forwards for phase in self.phases)

    @property
    def seconds(self) -> float:
        """Time of all phases."""
        return sum(phase.seconds for phase in self.phases)


class Environment(Record):
    """What the numbers were measured with."""

    versions: dict[str, str]
    device: str
    processes: Count = 1
    precision: str = "fp32"
    peak_memory: Count | None = Field(
        default=None, description="bytes that a process needed at most: of a GPU's memory, or else of the machine's"
    )


class Report(Record):
    """The one source of truth of a run; see the module docstring.

    ``matched`` says how the data set's class names were matched to the model's, where they are not equal. Reports
    written before there was such a field are read as if all names were equal.
    """

    schema_version: Literal[3]
    created: AwareDatetime
    source: Source
    dataset: str
    matched: str = ""
    skipped: Count = Field(default=0, description="images that could not be decoded and were left out")
    job: Annotated[str, Field(pattern=r"\A([0-9a-f]{64})?\z")] = Field(
        default="", description="which job it is from: a hash of weights, images, settings and seed"
    )
    findings: tuple[Finding, ...]
    before: State
    after: State | None = None
    hardening: Hardening | None = None
    environment: Environment
    limits: tuple[str, ...] = Field(description="what these numbers do not show")

    @property
    def test_dataset(self) -> str:
        """The data set that the numbers are from."""
        return self.dataset.rpartition(TESTED_ON)[2]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What casts doubt on all the numbers, one sentence each."""
        states = {"before hardening": self.before, "after hardening": self.after} if self.after else {"": self.before}
        seen = {when: (state.evaluation.accuracy, len(state.distances.classes)) for when, state in states.items()}
        return tuple(
            no_better_than_chance(accuracy, classes, when)
            for when, (accuracy, classes) in seen.items()
            if accuracy.may_be_chance(classes)
        )

    def both_reached(self) -> list[tuple[float, float]]:
        """(before, after) distances of the pairs reached both times; empty without an after."""
        return both_reached(self.before.distances.pairs, self.after.distances.pairs) if self.after else []

    def no_longer_reached(self) -> int:
        """Pairs that were measured both times, and reached before hardening only; they are in no mean."""
        after = {(pair.source, pair.target) for pair in self.after.distances.pairs} if self.after else set()
        again = sum((pair.source, pair.target) in after for pair in self.before.distances.reached)
        return again - len(self.both_reached())

    def distance_increase(self) -> float | None:
        """Mean of the relative increases, pair by pair (1.0 is +100 %); None if nothing can be compared."""
        return mean_increase(self.both_reached())

    def accuracy_loss(self) -> float | None:
        """Accuracy before minus accuracy after, in points of percent."""
        if self.after is None:
            return None
        return 100 * (self.before.evaluation.accuracy.value - self.after.evaluation.accuracy.value)

    def to_json(self) -> str:
        """The report as indented JSON."""
        return self.model_dump_json(indent=1)

    @classmethod
    def read(cls, path: Path, *, sha256: str | None = None) -> Report:
        """Read a report, or the report inside a release folder.

        Args:
            path: of the file or the folder.
            sha256: of the file as it was looked at before; None where nobody did.

        Raises:
            ReportError: the file is missing, is no JSON, does not fit this schema, or is another one by now.
        """
        # Who names a file may name a link; in a folder that somebody else filled, none is followed.
        path = path / REPORT_NAME if path.is_dir() else path.resolve()
        try:
            content = read_regular(path.parent, path.name, LARGEST_REPORT)
            if sha256 not in (None, hashlib.sha256(content).hexdigest()):
                raise ReportError(
                    f"{path} changed while it was looked at.", advice="Ask again when nobody writes there."
                )
            return cls.from_json(content)
        except OSError as error:
            raise ReportError(
                f"Cannot read the report {path}: {error.strerror}.", advice="Give a phard_report.json."
            ) from error
        except ValueError as error:
            problem = _older(content) or f"is not a report of schema {SCHEMA_VERSION}: {error}"
            raise ReportError(
                f"{path} {problem}.", advice="Write it anew with `phard measure` or `phard harden`."
            ) from error

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require(of_report(self))
        return self


def _older(content: bytes) -> str:
    """That a report is from an older version, whose numbers mean something else; empty if it is not."""
    try:
        version = dict(unambiguous(content)).get("schema_version")
    except (ValueError, TypeError):
        return ""
    if type(version) is not int or not 0 < version < SCHEMA_VERSION:
        return ""
    return f"is a report of schema {version}, which an older version of phard wrote; this one reads {SCHEMA_VERSION}"
