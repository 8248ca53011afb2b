"""What comes before the bank: forgetting, thoroughly or gently, and the accuracy that this may cost."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from phard_hub.accuracy import points_lost, right_answers
from phard_hub.defenses.featureshift import FeatureShift
from phard_hub.defenses.pervasive import AtOnce, PervasiveHardening
from phard_hub.models.classifier import Classifier
from phard_hub.trials.options import configured
from tests.defenses.test_adversarial import SETTINGS
from tests.small import PowerCutError, digit_images, same_weights, trained_digits, unmarked

FIRST = FeatureShift(schedule=replace(SETTINGS.schedule, steps=40, save_every=15))
BANK = replace(SETTINGS, schedule=replace(SETTINGS.schedule, steps=10, save_every=4), head_start=3)
JOINED = PervasiveHardening(**{each.name: getattr(BANK, each.name) for each in fields(BANK)}, forgetting=FIRST)


@pytest.mark.parametrize("phase", ["forgetting", "gently"])
def test_whoever_gives_a_phase_its_steps_gets_the_rest_of_its_schedule(phase: str) -> None:
    """An experiment file names the steps alone."""
    options = {phase: {"schedule": {"steps": 7}}}
    (first,) = configured(PervasiveHardening(), options, "defenses.some").first
    assert first.schedule == replace(type(first)().schedule, steps=7)


def test_forgetting_comes_first_and_is_paid_for() -> None:
    images, classifier = digit_images(3)[0], trained_digits(3)
    start, first = FIRST.harden(classifier, images, Accelerator(cpu=True))
    off = replace(JOINED, forgetting=FIRST.lasting(0))
    expected, second = off.harden(start, images, Accelerator(cpu=True))
    with unmarked(classifier):
        hardened, record = JOINED.harden(classifier, images, Accelerator(cpu=True))
    assert same_weights(hardened, expected)
    assert record.sample_gradients == first.sample_gradients + second.sample_gradients
    assert record.settings["forgetting"]["schedule"]["steps"] == 40


BROKEN = replace(FIRST, pushed=0.5, schedule=replace(FIRST.schedule, steps=4, learning_rate=0.001))
"""A random head, and no time to learn."""
GENTLY = AtOnce(
    schedule=replace(SETTINGS.schedule, steps=6, learning_rate=0.001, sharpness=0.5, way=0.7),
    head_start=3,
    head_start_batch=32,
)
WILD = replace(GENTLY, schedule=replace(GENTLY.schedule, learning_rate=20.0, warm_up=2.0, clip=100.0))


def test_forgetting_that_lost_too_much_accuracy_is_not_used() -> None:
    """Nor is what fits a start that has forgotten."""
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    settings = replace(JOINED, forgetting=BROKEN, distillation=5.0, schedule=replace(JOINED.schedule, way=0.5))
    off = replace(JOINED, forgetting=FIRST.lasting(0))
    expected, alone = off.harden(trained_digits(3), images, accelerator, validation=test)
    hardened, record = settings.harden(trained_digits(3), images, accelerator, validation=test)
    assert same_weights(hardened, expected)
    assert re.fullmatch(r"feature-shift lost [\d.]+ points of .* accuracy: went on without it", record.events[0])
    assert record.events[1:] == alone.events
    assert (record.forgotten, alone.forgotten) == (False, None)
    assert record.sample_gradients > alone.sample_gradients


def test_with_few_images_feature_shift_is_tried_last() -> None:
    """It may learn them by heart: with 5 % of CIFAR-10 it took a quarter of an hour to lose seven points."""
    images, test = digit_images(3)
    accelerator, start = Accelerator(cpu=True), trained_digits(3)
    passes = FIRST.schedule.steps * FIRST.schedule.batch / len(images)
    just, few = (replace(FIRST, passes=passes * factor) for factor in (1.001, 0.99))
    assert just.least_images <= len(images) < few.least_images
    settings = replace(JOINED, forgetting=just, gently=GENTLY)
    by_shift, _ = JOINED.harden(start, images, accelerator)
    at_once, _ = GENTLY.harden(start, images, accelerator)
    assert same_weights(settings.harden(start, images, accelerator)[0], by_shift)
    settings = replace(settings, forgetting=few)
    assert same_weights(settings.harden(start, images, accelerator)[0], at_once)
    # Where the other one fails, it has its turn.
    hardened, record = replace(settings, gently=WILD).harden(start, images, accelerator, validation=test)
    assert same_weights(hardened, JOINED.harden(start, images, accelerator, validation=test)[0])
    assert ["at-once lost" in event for event in record.events] == [True]


def test_it_does_both_at_once_where_forgetting_lost_too_much_accuracy() -> None:
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    expected, gently = GENTLY.harden(trained_digits(3), images, accelerator)
    settings = replace(JOINED, forgetting=BROKEN, gently=GENTLY, distillation=5.0)
    hardened, record = settings.harden(trained_digits(3), images, accelerator, validation=test)
    assert same_weights(hardened, expected)
    assert ["feature-shift lost" in event for event in record.events] == [True]
    assert record.forgotten
    tried = BROKEN.harden(trained_digits(3), images, accelerator)[1]
    assert record.sample_gradients == tried.sample_gradients + gently.sample_gradients
    assert (record.defense, record.curve) == ("pervasive", gently.curve)


def test_what_is_done_at_once_is_held_to_the_same_limit() -> None:
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    off = replace(JOINED, forgetting=FIRST.lasting(0))
    settings = replace(JOINED, forgetting=BROKEN, gently=WILD, distillation=5.0)
    hardened, record = settings.harden(trained_digits(3), images, accelerator, validation=test)
    assert same_weights(hardened, off.harden(trained_digits(3), images, accelerator, validation=test)[0])
    assert [event.split(" lost")[0] for event in record.events] == ["feature-shift", "at-once"]


def on_the_line(start: Classifier, end: Classifier, share: float) -> dict[str, torch.Tensor]:
    """Counters of batches are the start's; they play no role."""
    ends = zip(start.state_dict().items(), end.state_dict().values(), strict=True)
    return {name: old + share * (new - old) if old.is_floating_point() else old for (name, old), new in ends}


def test_what_is_done_at_once_goes_as_far_as_the_accuracy_allows() -> None:
    images, test = digit_images(3)
    accelerator, start = Accelerator(cpu=True), trained_digits(3)
    rough = replace(
        GENTLY, schedule=replace(GENTLY.schedule, steps=12, learning_rate=1.0, warm_up=0.1, clip=100.0, way=1.0)
    )
    end, _ = rough.harden(start, images, accelerator)
    before = right_answers(start, test, accelerator.device)

    def clearly_lost(share: float) -> float:
        made = start.clone()
        made.load_state_dict(on_the_line(start, end, share))
        lost, doubt = points_lost(before, right_answers(made, test, accelerator.device))
        return lost - 3 * doubt

    limit = clearly_lost(0.8) + 1e-3
    furthest = max(step / 20 for step in range(15, 21) if clearly_lost(step / 20) <= limit)
    assert 0.8 <= furthest < 1
    settings = replace(
        JOINED, schedule=replace(JOINED.schedule, max_accuracy_loss=limit), forgetting=BROKEN.lasting(0), gently=rough
    )
    hardened, record = settings.harden(start, images, accelerator, validation=test)
    assert f"the result is {100 * furthest:.0f} % of its way" in record.events[-1]
    for name, value in on_the_line(start, end, furthest).items():
        assert torch.allclose(hardened.state_dict()[name], value, atol=1e-6)


@pytest.mark.parametrize(("doubts", "used"), [(2.8, True), (3.2, False)])
def test_forgetting_is_refused_where_it_clearly_lost_too_much(doubts: float, used: bool) -> None:
    """By three standard errors, for with few images a point more or less is chance."""
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    start, _ = BROKEN.harden(trained_digits(3), images, accelerator)
    lost, doubt = points_lost(*(right_answers(each, test, accelerator.device) for each in (trained_digits(3), start)))
    moment = replace(JOINED.schedule, steps=1, max_accuracy_loss=lost - doubts * doubt)
    settings = replace(JOINED, schedule=moment, forgetting=BROKEN)
    _, record = settings.harden(trained_digits(3), images, accelerator, validation=test)
    assert any("went on without it" in event for event in record.events) != used


def test_the_guard_compares_with_the_classifier_before_forgetting() -> None:
    """What forgetting lost is lost, and is not counted from anew."""
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    start, _ = BROKEN.harden(trained_digits(3), images, accelerator)
    answers = [right_answers(each, test, accelerator.device) for each in (trained_digits(3), start)]
    lost, doubt = points_lost(*answers)
    assert lost > 10
    moment = replace(JOINED.schedule, steps=1, learning_rate=1e-6, max_accuracy_loss=lost - doubt / 2)
    settings = replace(JOINED, schedule=moment, forgetting=BROKEN)
    _, record = settings.harden(trained_digits(3), images, accelerator, validation=test)
    assert ["of the way" in event for event in record.events] == [True]
    settings = replace(settings, schedule=replace(moment, max_accuracy_loss=lost + 1))
    assert settings.harden(trained_digits(3), images, accelerator, validation=test)[1].events == ()


def test_accuracy_that_forgetting_gained_is_guarded_too() -> None:
    """A planted model often is less accurate than it could be; the bank may not spend what it gets back."""
    settings = replace(JOINED, forgetting=replace(FIRST, pushed=0.0))
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    random = torch.Generator().manual_seed(0)
    poor = trained_digits(3).clone()
    with torch.no_grad():
        for weight in poor.parameters():
            weight.add_(2 * weight.std(correction=0) * torch.randn(weight.shape, generator=random))
    (first,) = settings.first
    better, _ = first.harden(poor, images, accelerator)
    gained = -points_lost(*(right_answers(each, test, accelerator.device) for each in (poor, better)))[0]
    assert gained > 10
    # A result is wanted that is better by half of it: better than the start, not better than after forgetting.
    moment = replace(JOINED.schedule, steps=1, learning_rate=1e-6, max_accuracy_loss=-gained / 2)
    _, record = replace(settings, schedule=moment).harden(poor, images, accelerator, validation=test)
    assert ["from the last good weights" in event for event in record.events] == [True]
    settings = replace(settings, schedule=replace(moment, max_accuracy_loss=1.0))
    assert settings.harden(poor, images, accelerator, validation=test)[1].events == ()


@pytest.mark.parametrize("power_cut", [20, 45])
def test_a_run_killed_in_either_phase_continues_bit_for_bit(power_cut: int, tmp_path: Path) -> None:
    done: list[str] = []

    def cut(what: str, _done: int, _total: int) -> None:
        done.append(what)
        if len(done) == power_cut:
            raise PowerCutError

    images, classifier = digit_images(3)[0], trained_digits(3)
    whole, expected = JOINED.harden(classifier, images, Accelerator(cpu=True))
    with pytest.raises(PowerCutError):
        JOINED.harden(classifier, images, Accelerator(cpu=True), checkpoint=tmp_path / "run", progress=cut)
    assert set(done) == ({"shifting features"} if power_cut == 20 else {"shifting features", "hardening"})
    resumed, record = JOINED.harden(classifier, images, Accelerator(cpu=True), checkpoint=tmp_path / "run")
    assert same_weights(resumed, whole)
    assert record.sample_gradients == expected.sample_gradients
