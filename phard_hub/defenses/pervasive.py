"""Our defense: forget what may be planted, then train against a bank of triggers.

A backdoor that somebody planted may need a change far larger than the smallest one that works, and only of its own
kind, which a bank of small triggers never meets. So it is forgotten first, and the bank hardens what is left. With few
images there is no time for one after the other: what each costs in accuracy adds up. Then both are done at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pydantic import PositiveFloat

from phard_hub.defenses.adversarial import AdversarialTraining
from phard_hub.defenses.base import Defense
from phard_hub.defenses.featureshift import FeatureShift
from phard_hub.defenses.sharpnessaware import SharpnessAware
from phard_hub.ranges import Share
from phard_hub.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class AtOnce(AdversarialTraining):
    """Sharpness-aware steps on clean images, on random triggers and on the bank's: forgetting and hardening at once.

    The result goes part of the way, on the straight line from the classifier: accuracy returns sooner on it than what
    was unlearnt.
    """

    schedule: Schedule = field(default_factory=lambda: replace(SharpnessAware().schedule, way=0.65))
    stamped: Share = 0.25
    random: Share = 0.25
    budget: PositiveFloat = 8.0

    name = "at-once"
    guarded = False
    complete = True


@dataclass(frozen=True, kw_only=True)
class PervasiveHardening(AdversarialTraining):
    """Forgetting, and then adversarial training against a bank of pervasive triggers.

    Attributes:
        schedule: of the bank's steps. They may stop part of the way from what forgetting left, where the distance is
            dearest; not from the classifier as given, where what is planted returns on the way back.
        distillation: as in `AdversarialTraining`; the start is what forgetting left. Nothing of the start is held on to
            where nothing was forgotten.
        forgetting: what the model goes through before, if that has any steps, as in the presets. The bank then
            hardens what came of it.
        gently: what is done instead of both where forgetting lost more accuracy than the guard allows, and before
            forgetting is tried where there are few images; as far on its way as it does not clearly lose too much
            itself. Where that is less than three quarters, and forgetting was not taken either, the bank hardens the
            classifier as given.
    """

    forgetting: FeatureShift = field(default_factory=lambda: FeatureShift().lasting(0))
    gently: AtOnce = field(default_factory=lambda: AtOnce().lasting(0))

    name = "pervasive"

    @property
    def first(self) -> tuple[Defense, ...]:
        """Forgetting, thoroughly or gently, as far as these have any steps."""
        return tuple(each for each in (self.forgetting, self.gently) if each.schedule.steps)

    def alone(self) -> PervasiveHardening:
        """Nothing was forgotten, so nothing of it is held on to before the accuracy guard asks for it."""
        return replace(self, distillation=0.0, schedule=replace(self.schedule, way=1.0))
