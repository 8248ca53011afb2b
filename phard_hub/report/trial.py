"""A trial: one backdoor planted in one model, one defense against it, and what is left of it.

A comparison is a folder of these, one JSON file a cell. Like the report, they hold plain numbers and need no
torch to be read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from phard_hub.errors import ReportError
from phard_hub.report.base import Count, Record, Size
from phard_hub.report.distances import ClassDistances, Rate, both_reached, mean_increase
from phard_hub.report.record import Environment, Evaluation, Hardening, Rating, Source, TriggerSize
from phard_hub.settings import Seed, Share

TRIAL_SCHEMA: Literal[3] = 3
LARGEST_TRIAL = 64 * 2**20
NO_ATTACK = "none"
"""The attack that plants nothing: it shows what a defense does to a model as it is."""
NO_DEFENSE = "none"


class NaturalTrigger(Record):
    """The best that one attack family does to a model that was not trained on it; see `natural_vulnerability`."""

    name: str
    target: Count
    success: Rate
    untouched: Rate = Field(description="the same images without the trigger that are taken for the target")
    size: Size = Field(description="mean L2 norm of the trigger's change, pixels in [0, 1]")


class Relearned(Record):
    """What fine-tuning on a few poisoned images makes of a model, once for each seed; see `reactivation`."""

    steps: Count
    poisoned: Count = Field(description="how many images carried the trigger; 0 where each batch drew its own")
    success: tuple[Rate, ...] = Field(min_length=1)
    accuracy: tuple[Rate, ...] = Field(min_length=1)

    @property
    def mean(self) -> float:
        """Success, over the seeds."""
        return sum(rate.value for rate in self.success) / len(self.success)

    def __str__(self) -> str:
        """The mean, and the least and most of the seeds."""
        values = sorted(100 * rate.value for rate in self.success)
        spread = f" [{values[0]:.1f} to {values[-1]:.1f}]" if len(values) > 1 else ""
        return f"{100 * self.mean:.1f} %{spread} ({self.steps} steps)"


class Perturbed(Record):
    """Success of the trigger together with one small change of all images; see `reactivation`."""

    epsilon: float = Field(description="largest change of a pixel value, pixels in [0, 1]")
    success: Rate


class Judgement(Record):
    """All that was seen of one classifier; what was not asked for is None or empty."""

    evaluation: Evaluation
    autoattack: Rate | None = None
    relearned: tuple[Relearned, ...] = ()
    perturbed: Perturbed | None = None
    natural: tuple[NaturalTrigger, ...] = ()
    distances: ClassDistances | None = None

    def target_rank(self, target: int) -> int | None:
        """The place of this class among all by its universal distance, 1 for the smallest; None if not reached."""
        found = self.distances.universal if self.distances else ()
        reached = {pair.target: pair.distance for pair in found if pair.distance is not None}
        if target not in reached:
            return None
        return 1 + sum(distance < reached[target] for distance in reached.values())


def slug(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^\w.-]", "-", name)


class Cell(Record):
    """The place of a trial in a comparison; all are names of the experiment, and ``data_share`` is in (0, 1]."""

    model: str
    attack: str
    defense: str
    data_share: Share
    seed: Seed

    @property
    def file_name(self) -> str:
        """Where the trial is kept."""
        parts = (self.model, self.attack, self.defense, f"{self.data_share:g}", f"seed{self.seed}")
        return "~".join(map(slug, parts)) + ".json"

    def __str__(self) -> str:
        """The cell in words."""
        share = "" if self.data_share == 1 else f" with {100 * self.data_share:g} % of the images"
        return f"{self.model}, {self.attack}, {self.defense}{share}, seed {self.seed}"


class Trial(Record):
    """One cell of a comparison.

    ``original`` is the model before planting, with the same trigger: the clean reference for all rates. ``before``
    is the model with the backdoor and ``after`` the defended one. ``twin`` is the original after the same defense with
    the same seed and images: what of a backdoor comes back in ``after`` is to be compared with what the same does to
    it. A trial whose backdoor did not work has the status
    "no backdoor", and why it does not count in ``problem``; one that broke off is "failed", with its error there.
    """

    schema_version: Literal[3]
    cell: Cell
    config: dict[str, Any] = Field(description="all that decides the numbers")
    status: Literal["done", "no backdoor", "failed"]
    problem: str = ""
    source: Source | None = None
    dataset: str = ""
    target: Count | None = None
    size: TriggerSize | None = None
    original: Judgement | None = None
    before: Judgement | None = None
    after: Judgement | None = None
    twin: Judgement | None = None
    effectiveness: Rating | None = None
    hardening: Hardening | None = None
    created: AwareDatetime
    commit: str | None = Field(description="of phard_hub itself; '-dirty' if files were changed")
    environment: Environment | None = Field(description="None if the process died")
    seconds: dict[str, Size] = Field(default_factory=dict)

    @property
    def outcome(self) -> tuple[Rate, Rate] | None:
        """Attack success (before, after) the defense, if there was an attack and an end."""
        if self.before is None or self.after is None or not self.before.evaluation.attacks:
            return None
        return self.before.evaluation.attacks[0].success, self.after.evaluation.attacks[0].success

    def accuracy_lost(self, *, against_planted: bool = False) -> float | None:
        """Accuracy of the honest model minus that of the defended one, or of the planted one minus that; a share."""
        zero = self.before if against_planted else self.original
        if zero is None or self.after is None:
            return None
        return zero.evaluation.accuracy.value - self.after.evaluation.accuracy.value

    def distance_increase(self, *, against_planted: bool = False) -> float | None:
        """Mean relative increase of the distances since the honest model, or since the planted one; 1.0 is +100 %."""
        zero = self.before if against_planted else self.original
        if zero is None or self.after is None or zero.distances is None or self.after.distances is None:
            return None
        return mean_increase(both_reached(zero.distances.pairs, self.after.distances.pairs))

    @classmethod
    def read(cls, path: Path) -> Trial:
        """Read a trial.

        Raises:
            ReportError: the file is missing or holds no trial.
        """
        try:
            return cls.read_file(path, LARGEST_TRIAL)
        except OSError as error:
            raise ReportError(f"Cannot read the trial {path}: {error.strerror}.", advice="Check the file.") from error
        except ValueError as error:
            raise ReportError(
                f"{path} is not a trial of schema {TRIAL_SCHEMA}: {error}.", advice="Remove it, to run it again."
            ) from error

    def to_json(self) -> str:
        """One JSON document, indented, with a line feed at the end."""
        return self.model_dump_json(indent=1) + "\n"
