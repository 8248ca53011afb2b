"""Our defense as a story: which phases there are, what the accuracy allows to keep, and what goes on from where."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from phard_hub.defenses import AdversarialTraining, AtOnce, FeatureShift, PervasiveHardening
from phard_hub.defenses.base import Hardened
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.presets import DEFAULT
from phard_hub.report.record import Phase
from phard_hub.training.guard import Guard
from phard_hub.training.schedule import Schedule
from phard_hub.trials.options import configured
from tests.small import (
    Linear,
    PowerCutError,
    as_classifier,
    digit_images,
    guard,
    harden,
    job,
    noise_images,
    same_weights,
    trained_digits,
    unmarked,
)

# Phases whose results are given: N images, each a single bright pixel, and networks that are right about some of them.

COUNT, SHAPE = 100, (1, 10, 10)
VALIDATION = LabelledImages(
    (255 * torch.eye(COUNT, dtype=torch.uint8)).view(COUNT, *SHAPE), torch.zeros(COUNT).long(), ("a", "b"), "pixels"
)
MANY, FEW = noise_images(20, 2, SHAPE), noise_images(1, 2, SHAPE)


def knowing(scores: Tensor) -> Classifier:
    """A classifier that is right about the images whose score is above one half."""
    weight = torch.stack([scores, torch.full((COUNT,), 0.5)])
    return as_classifier(Linear(weight, torch.zeros(2)), 2, SHAPE).eval()


def wrong_about(count: int) -> Classifier:
    """A classifier that is wrong about the first images; half of the way to it from one that is not, it is right."""
    return knowing(torch.where(torch.arange(COUNT) < count, -0.5, 1.0))


START = wrong_about(0)


def losing_with_the_way(points: int) -> Classifier:
    """A classifier that is wrong about some images, one after the other on the last half of the way to it."""
    place = 0.5 + 0.5 * torch.arange(COUNT) / points
    return knowing(torch.where(torch.arange(COUNT) < points, 1 - 0.5 / place, torch.tensor(1.0)))


def phase_of(name: str, settings: dict[str, Any], made: Classifier, guard: Guard | None) -> Phase:
    lost = None if guard is None else guard.look(made).points
    return Phase(
        defense=name, settings=settings, points_lost=lost, sample_gradients=1, sample_forwards=10, seconds=100.0
    )


@dataclass(frozen=True, kw_only=True)
class GivenForgetting(FeatureShift):
    made: Classifier = field(default=START, compare=False)

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        return Hardened(self.made, (phase_of("forgetting", {}, self.made, guard),))


@dataclass(frozen=True, kw_only=True)
class GivenAtOnce(AtOnce):
    made: Classifier = field(default=START, compare=False)

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        return Hardened(self.made, (phase_of("at-once", {}, self.made, guard),))


@dataclass(frozen=True, kw_only=True)
class NoBank(AdversarialTraining):
    """Gives its start back, and says what it was asked for."""

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        asked = {"distillation": self.distillation, "way": self.schedule.interpolation}
        return Hardened(classifier, (phase_of("bank", asked, classifier, guard),))


def settings(forgetting: Classifier, at_once: Classifier = START) -> PervasiveHardening:
    """Forgetting needs four images, and accuracy may fall by 5 points."""
    return PervasiveHardening(
        forgetting=GivenForgetting(made=forgetting, schedule=Schedule(steps=1, batch=4), passes=1.0),
        bank=NoBank(distillation=3.0, schedule=Schedule(interpolation=0.8, max_accuracy_loss=5.0)),
        at_once=GivenAtOnce(made=at_once),
    )


GOOD, BAD = wrong_about(5), wrong_about(50)
WHOLE, ALONE = {"distillation": 3.0, "way": 0.8}, {"distillation": 0.0, "way": 1.0}
STORIES = {
    "forgetting is kept": (GOOD, BAD, MANY, [("forgetting", True), ("bank", True)], GOOD),
    "forgetting lost too much": (BAD, GOOD, MANY, [("forgetting", False), ("at-once", True)], GOOD),
    "with few images both at once": (GOOD, GOOD, FEW, [("at-once", True)], GOOD),
    "and forgetting after it": (GOOD, BAD, FEW, [("at-once", False), ("forgetting", True), ("bank", True)], GOOD),
    "both lost too much": (BAD, BAD, MANY, [("forgetting", False), ("at-once", False), ("bank", True)], START),
    "both, few images": (BAD, BAD, FEW, [("at-once", False), ("forgetting", False), ("bank", True)], START),
}


@pytest.mark.parametrize("story", STORIES)
def test_what_is_tried_and_kept(story: str) -> None:
    forgetting, at_once, images, expected, result = STORIES[story]
    made, record = harden(settings(forgetting, at_once), START, images, validation=VALIDATION)
    assert [(phase.defense, phase.kept) for phase in record.phases] == expected
    assert same_weights(made, result)
    assert record.forgotten is None  # none of these says that it forgets
    count = len(expected)
    assert (record.sample_gradients, record.sample_forwards, record.seconds) == (count, 10 * count, 100.0 * count)
    refused = [phase for phase in record.phases if not phase.kept]
    assert [phase.events for phase in refused] == [
        (f"{phase.defense} lost 50.0 points of validation accuracy: went on without it",) for phase in refused
    ]
    assert all(phase.points_lost == 50 for phase in refused)
    # Where nothing was forgotten, nothing holds on to the start.
    if record.phases[-1].defense == "bank":
        assert record.phases[-1].settings == (WHOLE if ("forgetting", True) in expected else ALONE)


@pytest.mark.parametrize("images", [MANY, FEW], ids=["many", "few"])
def test_without_a_guard_nothing_is_refused(images: LabelledImages) -> None:
    made, record = harden(settings(BAD, BAD), START, images)
    assert same_weights(made, BAD)
    assert all(phase.kept and phase.points_lost is None for phase in record.phases)


@pytest.mark.parametrize("off", ["forgetting", "at_once", "both"])
def test_a_phase_without_steps_is_left_out(off: str) -> None:
    given = settings(GOOD, GOOD)
    if off != "at_once":
        given = replace(given, forgetting=given.forgetting.lasting(0))
    if off != "forgetting":
        given = replace(given, at_once=given.at_once.lasting(0))
    names = [phase.defense for phase in harden(given, START, MANY, validation=VALIDATION)[1].phases]
    assert names == {"forgetting": ["at-once"], "at_once": ["forgetting", "bank"], "both": ["bank"]}[off]


def test_with_few_images_forgetting_is_tried_last() -> None:
    """It may learn them by heart: with 5 % of CIFAR-10 it took a quarter of an hour to lose seven points."""
    for count, first in ((4, "forgetting"), (3, "at-once")):
        images = MANY.take(torch.arange(count))
        assert harden(settings(GOOD, GOOD), START, images, validation=VALIDATION)[1].phases[0].defense == first


@pytest.mark.parametrize(("wrong", "kept"), [(15, True), (16, False)])
def test_a_loss_has_to_be_clear_to_refuse(wrong: int, kept: bool) -> None:
    """By three standard errors: 15 - 5 points are less than 3 x 100 (0.15 x 0.85 / 100)^0.5, and 16 - 5 are more."""
    record = harden(settings(wrong_about(wrong)), START, MANY, validation=VALIDATION)[1]
    assert record.phases[0].kept == kept


def test_what_is_done_at_once_goes_as_far_as_the_accuracy_allows() -> None:
    end = losing_with_the_way(30)  # 27 of them wrong at 95 %, 18 at 80 %, 15 at 75 %: and 15 may be
    made, record = harden(settings(BAD, end), START, MANY, validation=VALIDATION)
    tried = record.phases[-1]
    assert (tried.defense, tried.kept, tried.share, tried.points_lost) == ("at-once", True, 0.75, 15.0)
    assert tried.events == ("at-once lost 30.0 points of validation accuracy: the result is 75 % of its way",)
    weight, start, goal = (each.network.get_parameter("weight") for each in (made, START, end))
    assert torch.allclose(weight, start + 0.75 * (goal - start))


def test_the_share_of_the_way_counts_what_the_phase_left_out_itself() -> None:
    given = settings(BAD, losing_with_the_way(30))
    (phase,) = given.at_once.harden(START, MANY, job(), guard(START, VALIDATION)).phases
    halved = Hardened(given.at_once.made, (phase.model_copy(update={"share": 0.5}),))  # type: ignore[attr-defined]
    object.__setattr__(given.at_once, "harden", lambda *_: halved)
    assert harden(given, START, MANY, validation=VALIDATION)[1].phases[-1].share == 0.375


class TestTheGuardAfterForgetting:
    """What forgetting lost is not counted from anew, and what it gained may not be spent."""

    def after(self, start: Classifier, forgotten: Classifier) -> Guard:
        before = guard(start, VALIDATION)
        assert before is not None
        return before.going_on_from(forgotten)

    def test_a_loss_is_compared_with_the_classifier_before(self) -> None:
        after = self.after(START, wrong_about(4))
        assert after.lost_before == 4
        assert after.look(wrong_about(6)).points == 6

    def test_a_gain_is_guarded_too(self) -> None:
        after = self.after(wrong_about(30), wrong_about(10))
        assert after.lost_before == 0
        assert after.look(wrong_about(12)).points == 2


# Real phases, for a few steps.

SHORT = Schedule(steps=6, batch=32, guard_every=3, save_every=4, shift=0.0, flip=False, learning_rate=1e-3)
REAL = PervasiveHardening(
    forgetting=FeatureShift(schedule=SHORT, pushed=0.5),
    bank=AdversarialTraining(schedule=SHORT, head_start=2, head_start_batch=32, distillation=1.0),
    at_once=AtOnce(schedule=replace(SHORT, sharpness=0.5, interpolation=0.7), head_start=2, head_start_batch=32),
)


def test_the_bank_hardens_what_has_forgotten() -> None:
    images, classifier = digit_images(3)[0], trained_digits(3)
    forgotten, _ = harden(REAL.forgetting, classifier, images)
    expected, _ = harden(REAL.bank, forgotten, images)
    with unmarked(classifier):
        hardened, record = harden(replace(REAL, forgetting=replace(REAL.forgetting, passes=1e6)), classifier, images)
    assert same_weights(hardened, expected)
    assert [phase.defense for phase in record.phases] == ["feature-shift", "adversarial"]
    assert record.forgotten
    assert record.settings["forgetting"]["schedule"]["steps"] == 6


@pytest.mark.parametrize("power_cut", [3, 10])
def test_a_run_killed_in_either_phase_continues_bit_for_bit(power_cut: int, tmp_path: Path) -> None:
    done: list[str] = []

    def cut(what: str, _done: int, _total: int) -> None:
        done.append(what)
        if len(done) == power_cut:
            raise PowerCutError

    images, classifier = digit_images(3)[0], trained_digits(3)
    whole, expected = harden(REAL, classifier, images)
    with pytest.raises(PowerCutError):
        harden(REAL, classifier, images, folder=tmp_path / "run", progress=cut)
    assert set(done) == ({"forgetting"} if power_cut == 3 else {"forgetting", "hardening"})
    resumed, record = harden(REAL, classifier, images, folder=tmp_path / "run")
    assert same_weights(resumed, whole)
    assert [phase.model_copy(update={"seconds": 0.0}) for phase in record.phases] == [
        phase.model_copy(update={"seconds": 0.0}) for phase in expected.phases
    ]


@pytest.mark.parametrize("phase", ["forgetting", "at_once"])
def test_whoever_gives_a_phase_its_steps_gets_the_rest_of_its_schedule(phase: str) -> None:
    """An experiment file names the steps alone."""
    made = getattr(configured(PervasiveHardening(), {phase: {"schedule": {"steps": 7}}}, "defenses.some"), phase)
    assert made.schedule == replace(type(made)().schedule, steps=7)


def test_other_defenses_get_as_many_steps_as_ours() -> None:
    """In a comparison of equal cost; without the way back that only the bank needs."""
    tuning = DEFAULT.defense_named("fine-tuning")
    assert tuning.schedule.steps == DEFAULT.defense.steps == 3800  # type: ignore[attr-defined]
    assert tuning.schedule.interpolation == 1.0  # type: ignore[attr-defined]
    half = DEFAULT.defense.lasting(1900)
    assert (half.forgetting.schedule.steps, half.bank.schedule.steps, half.at_once.schedule.steps) == (1350, 550, 200)
