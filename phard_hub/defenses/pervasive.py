"""Our defense: forget what may be planted, then train against a bank of triggers.

A backdoor that somebody planted may need a change far larger than the smallest one that works, and only of its own
kind, which a bank of small triggers never meets. So the model forgets it first, and the bank hardens what is left. With
few images there is no time to do one after the other, because their costs in accuracy add up. Then both are done at
once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from typing import Self, TypeVar

from pydantic import PositiveFloat

from phard_hub.defenses.base import Defense, Hardened
from phard_hub.defenses.hardening.adversarial import AdversarialTraining
from phard_hub.defenses.removal.featureshift import FeatureShift
from phard_hub.defenses.removal.sharpnessaware import SharpnessAware
from phard_hub.defenses.trained import Trained
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Phase
from phard_hub.settings import Share, settings
from phard_hub.training.guard import Guard, Loss
from phard_hub.training.interpolation import part_of_the_way
from phard_hub.training.schedule import Schedule

SHARES = tuple(step / 20 for step in range(20, 14, -1))
"""How far a result at once may lie on its way: less than three quarters forgets too little."""


@settings
class AtOnce(AdversarialTraining):
    """Sharpness-aware steps on clean images, on random triggers and on the bank's: forgetting and hardening at once.

    The result lies on the straight line from the classifier, before its end: accuracy returns sooner on it than what
    was unlearnt.
    """

    schedule: Schedule = field(default_factory=lambda: replace(SharpnessAware().schedule, interpolation=0.65))
    stamped: Share = 0.25
    random: Share = 0.25
    budget: PositiveFloat = 8.0

    name = "at-once"
    guarded = False
    forgets = True


Phased = TypeVar("Phased", bound=Trained)
Attempt = Callable[[Classifier, LabelledImages, Job, Guard | None], Hardened]


@settings
class PervasiveHardening(Defense):
    """Forgetting, and then adversarial training against a bank of pervasive triggers.

    Two attempts are made, in an order that depends on the number of images: `forgetting` and then the `bank`, or both
    `at_once`. The first is refused if forgetting clearly lost more accuracy than the bank's schedule allows, the second
    if all results on the last quarter of its way did. If both are refused, the bank hardens the classifier as given.

    Attributes:
        forgetting: the first phase, if it has any steps.
        bank: hardens what forgetting left. Its distillation holds on to the model that has forgotten, and its result
            may stop part of the way from there. Where nothing was forgotten, both would protect what is planted: then
            there is no distillation, and the result is at the end.
        at_once: the other attempt, if it has any steps.
    """

    forgetting: FeatureShift = field(default_factory=FeatureShift)
    bank: AdversarialTraining = field(default_factory=AdversarialTraining)
    at_once: AtOnce = field(default_factory=AtOnce)

    name = "pervasive"

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A hardened copy, by the first attempt that does not lose too much accuracy; see `Defense.harden`."""
        refused: tuple[Phase, ...] = ()
        for attempt in self._attempts(images):
            made = attempt(classifier, images, job, guard)
            if made.kept:
                return Hardened(made.classifier, refused + made.phases)
            refused += made.phases
        alone = replace(self.bank, distillation=0.0, schedule=replace(self.bank.schedule, interpolation=1.0))
        made = alone.harden(classifier, images, job.part("hardening"), guard)
        return Hardened(made.classifier, refused + made.phases)

    def _attempts(self, images: LabelledImages) -> list[Attempt]:
        """What is tried, in this order; forgetting may learn few images by heart, and is tried last with them."""
        attempts: list[Attempt] = [self._forget_then_harden] if self.forgetting.schedule.steps else []
        attempts += [self._at_once] if self.at_once.schedule.steps else []
        return attempts if len(images) >= self.forgetting.least_images else attempts[::-1]

    def _forget_then_harden(
        self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None
    ) -> Hardened:
        """Harden what has forgotten, unless it clearly lost too much accuracy."""
        forgotten = self.forgetting.harden(classifier, images, job.part("forgetting"), guard)
        if guard and guard.look(forgotten.classifier).is_clear(self._limit):  # no later step would bring it back
            return _refused(forgotten, classifier)
        guard = guard and guard.going_on_from(forgotten.classifier)
        hardened = self.bank.harden(forgotten.classifier, images, job.part("hardening"), guard)
        return Hardened(hardened.classifier, forgotten.phases + hardened.phases)

    def _at_once(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None) -> Hardened:
        """Do both at once, and go as far with it as the accuracy allows."""
        whole = self.at_once.harden(classifier, images, job.part("at once"), guard)
        if guard is None:
            return whole
        for share in SHARES:
            result = part_of_the_way(classifier, whole.classifier, share)
            lost = guard.look(result)
            if not lost.is_clear(self._limit):
                return _shortened(whole, result, share, lost) if share < 1 else whole
        return _refused(whole, classifier)

    @property
    def steps(self) -> int:
        """Updates of the model, where forgetting is kept."""
        return self.forgetting.schedule.steps + self.bank.schedule.steps

    @property
    def gradients(self) -> int:
        """About how many sample-gradients it takes, where forgetting is kept."""
        return self.forgetting.gradients + self.bank.gradients

    def lasting(self, steps: int) -> Self:
        """The same with phases whose steps add up to this, in the proportion that they have."""
        factor = steps / self.steps
        return replace(
            self,
            forgetting=_scaled(self.forgetting, factor),
            bank=_scaled(self.bank, factor),
            at_once=_scaled(self.at_once, factor),
        )

    @property
    def _limit(self) -> float:
        """Points of accuracy that may be lost, beyond chance."""
        return self.bank.schedule.max_accuracy_loss


def _scaled(phase: Phased, factor: float) -> Phased:
    return phase.lasting(round(factor * phase.schedule.steps))


def _refused(made: Hardened, start: Classifier) -> Hardened:
    """The start, because what was made of it lost too much."""
    (phase,) = made.phases
    events = (*phase.events, f"{_lost(phase)}: went on without it")
    return Hardened(start, (phase.model_copy(update={"kept": False, "events": events}),))


def _shortened(made: Hardened, result: Classifier, share: float, lost: Loss) -> Hardened:
    """What lies at this share of the way to what was made."""
    (phase,) = made.phases
    events = (*phase.events, f"{_lost(phase)}: the result is {100 * share:.0f} % of its way")
    update = {
        "share": share * phase.share,
        "points_lost": lost.points,
        "points_at_most": lost.at_most,
        "events": events,
    }
    return Hardened(result, (phase.model_copy(update=update),))


def _lost(phase: Phase) -> str:
    return f"{phase.defense} lost {phase.points_lost:.1f} points of validation accuracy"
