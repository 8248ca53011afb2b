"""Named settings of the whole job: how hard to search and how long to harden."""

from __future__ import annotations

from dataclasses import field, replace

from phard_hub.defenses import (
    DEFENSES,
    RIVALS,
    AdversarialTraining,
    AtOnce,
    Defense,
    FeatureShift,
    PervasiveHardening,
)
from phard_hub.evaluation.threats import PGD
from phard_hub.settings import settings
from phard_hub.training.schedule import Schedule
from phard_hub.triggers.search import CHEAPEST as CHEAPEST_SEARCH
from phard_hub.triggers.search import SearchSettings


def forget_and_harden(*, forgetting: int, at_once: int, steps: int) -> PervasiveHardening:
    """Forget what may be planted, then harden what is left.

    Feature shift tuning forgets most, and with many images the accuracy comes back; with few it does not, and
    sharpness-aware steps, against the bank's triggers at once, do nearly as much for less. The bank pays for distance
    with accuracy; distillation buys most of it back, and protects nothing planted where the teacher has forgotten it.
    The last fifth of its way costs two fifths of the accuracy and brings a sixth of the distance: it stops before that.

    Args:
        forgetting: steps of feature shift tuning.
        at_once: sharpness-aware steps, where there are few images or the former lost too much accuracy.
        steps: of hardening.
    """
    return PervasiveHardening(
        # Pushed for as many steps in a short run as in a long one: it is what they have to undo.
        forgetting=FeatureShift(pushed=80 / forgetting).lasting(forgetting),
        bank=AdversarialTraining(distillation=3.0, schedule=Schedule(steps=steps, interpolation=0.8)),
        at_once=AtOnce().lasting(at_once),
    )


@settings
class Preset:
    """The search for class distances, the defense, and the attack behind the robust accuracy."""

    search: SearchSettings = field(default_factory=SearchSettings)
    defense: PervasiveHardening = field(
        default_factory=lambda: forget_and_harden(forgetting=2700, at_once=400, steps=1100)
    )
    pgd: PGD = field(default_factory=PGD)

    def defense_named(self, name: str) -> Defense:
        """A defense with as many updates of the model as ours has in this preset; those of others are as published."""
        if name == self.defense.name:
            return self.defense
        made = DEFENSES[name]()
        return made if type(made) in RIVALS else made.lasting(self.defense.steps)


DEFAULT = Preset()
GATE = Preset(  # of the kinds those that one bank makes: the others take most of the time
    # Many steps of few images: where distances are large, as with photos, triggers have a long way to go.
    search=SearchSettings(steps=250, batch=4, choosing_images=30, max_pairs=0, kinds=("warp", "colour", "field")),
    pgd=PGD(images=500),
)
FAST = Preset(
    search=SearchSettings(steps=100, choosing_images=30),
    defense=forget_and_harden(forgetting=1200, at_once=200, steps=250),
    pgd=PGD(images=500),
)
THOROUGH = Preset(search=SearchSettings(steps=300), defense=forget_and_harden(forgetting=5400, at_once=800, steps=3000))
_MOMENT = Schedule(steps=8, batch=32, guard_every=4, save_every=2)
CHEAPEST = Preset(  # only for tests
    search=CHEAPEST_SEARCH,
    defense=PervasiveHardening(
        forgetting=FeatureShift(schedule=replace(_MOMENT, steps=4, learning_rate=1e-3), pushed=0.0),
        bank=AdversarialTraining(schedule=_MOMENT, head_start=2, head_start_batch=32),
        at_once=AtOnce().lasting(0),
    ),
    pgd=PGD(steps=2, images=20),
)

PRESETS = {"gate": GATE, "fast": FAST, "default": DEFAULT, "thorough": THOROUGH, "cheapest": CHEAPEST}
