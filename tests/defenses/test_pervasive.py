"""The defense: which triggers it trains against, what they cost, and that hardening makes them larger."""

from __future__ import annotations

import math
import re
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from phard_hub.accuracy import points_lost, right_answers
from phard_hub.attacks import Blend
from phard_hub.attacks.planting import plant
from phard_hub.defenses.featureshift import FeatureShift
from phard_hub.defenses.pervasive import PervasiveHardening, _Objective
from phard_hub.defenses.sharpnessaware import SharpnessAware
from phard_hub.evaluation import Threat, attack_outcome, evaluate, predict
from phard_hub.models.classifier import Classifier
from phard_hub.presets import CHEAPEST
from phard_hub.report.record import Hardening, PairDistance
from phard_hub.training import Schedule
from phard_hub.trials.options import configured
from phard_hub.triggers.bank import Parts, Trigger, change_size
from phard_hub.triggers.pool import UNIVERSAL
from phard_hub.triggers.search import SearchSettings, measure
from tests.small import PowerCutError, digit_images, same_weights, small_net, trained_digits, unmarked

SETTINGS = PervasiveHardening(
    schedule=Schedule(steps=80, batch=64, learning_rate=0.05, shift=0.0, flip=False),
    stamped=0.5,
    universal=0.5,
    head_start=30,
    head_start_batch=96,
    learning_rate=0.03,
    price=0.1,
    random=0.0,  # on digits, random triggers alone remove what is planted here
)


TARGET = 1
SEARCH = SearchSettings(steps=80, batch=8, fit_images=40, heldout_images=25, price=0.3)
THREAT = Threat(name="blend", trigger=Blend(alpha=0.15), target=TARGET)


@cache
def backdoored() -> Classifier:
    """A classifier of digits that a faint pattern sends to class 1."""
    images, _ = digit_images(3)
    schedule = Schedule(steps=200, batch=64, learning_rate=0.05, shift=0.0, flip=False)
    attack = Blend(alpha=0.15)
    return plant(small_net(3), images, attack, target=TARGET, accelerator=Accelerator(cpu=True), schedule=schedule)


def objective(classes: int, settings: PervasiveHardening = SETTINGS) -> _Objective:
    classifier = trained_digits(classes)
    return _Objective(settings, classifier, classifier.clone(), digit_images(classes)[0], Accelerator(cpu=True), 0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_triggers_that_work_are_chosen_more_often() -> None:
    made = objective(4)
    labels = torch.full((4000,), 2)
    even = torch.bincount(made.choose(labels, generator()), minlength=len(made.triggers))
    works = int(((made.triggers.source == 2) & (made.triggers.target == 1)).nonzero())
    made.running[works] = 0.9
    worked = torch.bincount(made.choose(labels, generator()), minlength=len(made.triggers))
    assert (worked > 2 * even).nonzero().flatten().tolist() == [works]


def trigger(made: _Objective, row: int) -> Trigger:
    """One direction's trigger as a function on pixels."""

    def stamp(pixels: Tensor) -> Tensor:
        stamped: Tensor = made.bank(
            pixels, made.components[row].expand(len(pixels), -1), made.strengths[row].expand(len(pixels), -1)
        )
        return stamped

    return stamp


def test_each_kind_is_stamped_at_its_own_size() -> None:
    settings = replace(SETTINGS, budget=4.0, colour_budget=12.0, waves_budget=20.0, parts=Parts(waves=True))
    made = objective(3, settings)
    with torch.no_grad():
        for parameter in made.bank.parameters():
            parameter.fill_(0.2)
        amplitudes = made.bank.get_parameter("waves")
        amplitudes[:, :, 1:] = amplitudes[:, :, :, 1:] = 0  # added up, they would be cut off
    images = digit_images(3)[0]
    pixels = 0.4 + 0.2 * images.batch(range(64))[0]  # hardly anything is cut off
    level = pixels[0].numel() ** 0.5 / 255
    for kind, budget in (("field", 4.0), ("colour", 12.0), ("waves", 20.0)):
        row = made.triggers.kind.index(kind)
        with torch.no_grad():
            stamped = change_size(made._stamped(pixels, torch.full((64,), row), generator()), pixels) / level
        # Half the parameters are not quite half the change where a trigger has two parts, as colours do.
        assert 0.4 * budget < stamped.min() < 0.7 * budget
        assert 0.8 * budget < stamped.max() < 1.2 * budget


def test_images_for_random_triggers_come_on_top_and_the_bank_does_not_learn_from_them() -> None:
    costs = []
    for share in (0.0, 0.25, 1.0):
        made = objective(3, replace(SETTINGS, stamped=0.5, random=share, head_start=0))
        images = digit_images(3)[0]
        made.loss(made.plain, *images.batch(range(32)), 1)
        costs.append(made.sample_gradients)
    assert costs == [32 + 16 + 16, 32 + 16 + 12, 32 + 16]


def test_the_head_start_finds_a_trigger_that_works() -> None:
    """Against a backdoored classifier, where a small trigger to one class exists."""
    classifier, (images, test) = backdoored(), digit_images(3)
    made = _Objective(SETTINGS, classifier, classifier.clone(), images, Accelerator(cpu=True), 0)

    def turned() -> float:
        shares = []
        for row in (made.triggers.target == TARGET).nonzero().flatten().tolist():
            source = int(made.triggers.source[row])
            others = test.labels != TARGET if source == UNIVERSAL else test.labels == source
            predictions, _ = predict(made.plain, test.take(others.nonzero().flatten()), trigger(made, row))
            shares.append((predictions == TARGET).double().mean().item())
        return max(shares)

    before, success = turned(), made.observed()[0]
    with unmarked(made.plain, made.teacher):
        made._head_start(generator())
    assert before < 0.1
    assert turned() > before + 0.3
    assert made.observed()[0] > success
    assert made.observed()[1] > 0


def test_success_and_size_follow_the_triggers_that_were_used() -> None:
    made = objective(3)
    before, rows = made.price.clone(), torch.tensor([0, 0, 1])
    for _ in range(40):
        made._follow(rows, torch.tensor([1.0, 1.0, 0.0]), torch.tensor([2.0, 4.0, 1.0]))
    assert bool((made.price[:2] != before[:2]).all())
    assert torch.equal(made.price[2:], before[2:])
    assert made.running[:3].tolist() == pytest.approx([1, 0, 0], abs=0.01)
    assert made.sizes[:3].tolist() == pytest.approx([3, 1, 0], abs=0.05)


def test_backing_off_brings_in_distillation_more_each_time() -> None:
    made = objective(3)
    assert made.distillation == SETTINGS.distillation == 0
    said = [made.back_off() for _ in range(2)]
    assert made.distillation == 2 * SETTINGS.more_distillation > 0
    assert said == [
        f"distillation from the model it started from at weight {times * SETTINGS.more_distillation:g} from here on"
        for times in (1, 2)
    ]


def test_what_backing_off_did_counts_in_the_loss() -> None:
    made, other = objective(3), objective(3)
    images = digit_images(3)[0]
    pixels, labels = images.batch(range(16))
    for _ in range(5):  # away from the original, to which there is no divergence at the start
        made.plain.load_state_dict({k: v + 0.05 for k, v in made.plain.state_dict().items()})
    other.plain.load_state_dict(made.plain.state_dict())
    other.back_off()
    losses = [each.loss(each.plain, pixels, labels, 1).item() for each in (made, other)]
    assert losses[1] > losses[0]


def test_a_saved_objective_goes_on_as_it_was() -> None:
    one, other = objective(3), objective(3)
    one._head_start(generator(4))
    for _ in range(3):
        one.back_off()
    other.load_state_dict(deepcopy(one.state_dict()))
    pixels, labels = digit_images(3)[0].batch(range(16))
    losses = [made.loss(made.plain, pixels, labels, 7).item() for made in (one, other)]
    assert losses[0] == losses[1]
    assert same_weights(one.bank, other.bank)
    assert one.sample_gradients == other.sample_gradients
    assert one.distillation == other.distillation > 0
    assert torch.equal(one.price, other.price)


def test_samples_are_counted_exactly() -> None:
    steps, batch, head_start, head_start_batch = 5, 20, 2, 12
    settings = replace(
        SETTINGS,
        schedule=Schedule(steps=steps, batch=batch, flip=False),
        stamped=0.25,
        head_start=head_start,
        head_start_batch=head_start_batch,
    )
    images = digit_images(3)[0]
    _, record = settings.harden(small_net(3), images, Accelerator(cpu=True))
    # In a step the bank looks at 5 images, the model at 20 clean and 5 stamped ones.
    assert record.sample_gradients == head_start * head_start_batch + steps * (5 + 25)
    assert record.sample_forwards == 0  # the original is asked only when the guard has acted


def test_the_record_says_how_it_was_done() -> None:
    images, validation = digit_images(3)
    _, record = CHEAPEST.defense.harden(trained_digits(), images, Accelerator(cpu=True), seed=5, validation=validation)
    assert record.defense == PervasiveHardening.name == "pervasive"
    assert record.settings == asdict(CHEAPEST.defense)
    assert (record.seed, record.images) == (5, len(images))
    assert [point.step for point in record.curve] == [4, 8]
    assert all(0 <= point.bank_success <= 1 and point.bank_distance > 0 for point in record.curve)
    assert Hardening.model_validate_json(record.model_dump_json()).curve == record.curve


@pytest.mark.parametrize("classes", [2, 3])
def test_no_stamp_and_no_learning_rate_change_nothing(classes: int) -> None:
    settings = replace(SETTINGS, schedule=Schedule(steps=4, batch=16, learning_rate=0.0, flip=False), head_start=1)
    classifier = trained_digits(classes)
    hardened, _ = settings.harden(classifier, digit_images(classes)[0], Accelerator(cpu=True))
    for (name, before), after in zip(classifier.named_parameters(), hardened.parameters(), strict=True):
        assert torch.equal(before, after), name


@cache
def hardened(learning_rate: float) -> Classifier:
    """Hardened with a bank of this learning rate; with none it keeps its random start and finds nothing."""
    settings = replace(SETTINGS, learning_rate=learning_rate)
    return settings.harden(backdoored(), digit_images(3)[0], Accelerator(cpu=True))[0]


@cache
def distances_to_target(which: str) -> dict[str, float]:
    """The smallest trigger to the target of the backdoor from everywhere, and the mean over the pairs to it."""
    classifier = backdoored() if which == "before" else hardened(0.03 if which == "after" else 0.0)
    distances = measure(classifier, digit_images(3)[0], SEARCH).distances

    def size(pair: PairDistance) -> float:
        # One that is no longer reached is larger than any that was.
        return math.inf if pair.distance is None else pair.distance

    pairs = [size(pair) for pair in distances.pairs if pair.target == TARGET]
    (universal,) = (size(pair) for pair in distances.universal if pair.target == TARGET)
    return {"universal": universal, "pairs": sum(pairs) / len(pairs)}


@pytest.mark.parametrize("kind", ["universal", "pairs"])
def test_hardening_makes_the_smallest_trigger_larger(kind: str) -> None:
    assert distances_to_target("before")[kind] < 0.7
    assert distances_to_target("after")[kind] > 1.8 * distances_to_target("before")[kind]


@pytest.mark.parametrize("kind", ["universal", "pairs"])
def test_the_gain_comes_from_the_triggers_and_not_from_more_training(kind: str) -> None:
    assert distances_to_target("idle")[kind] < 1.5 * distances_to_target("before")[kind]


def test_hardening_removes_a_backdoor_that_it_was_not_told_of() -> None:
    test = digit_images(3)[1]
    success = [
        attack_outcome(classifier, test, THREAT).success.value
        for classifier in (backdoored(), hardened(0.0), hardened(0.03))
    ]
    assert success[0] > 0.9
    assert success[1] > 0.6
    assert success[2] < 0.2


def test_hardening_keeps_the_accuracy() -> None:
    test = digit_images(3)[1]
    assert evaluate(hardened(0.03), test).accuracy.value > 0.95


FIRST = FeatureShift(schedule=replace(SETTINGS.schedule, steps=40, save_every=15))
JOINED = replace(SETTINGS, schedule=replace(SETTINGS.schedule, steps=10, save_every=4), head_start=3, forgetting=FIRST)


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
GENTLY = SharpnessAware(schedule=replace(SETTINGS.schedule, steps=6, learning_rate=0.001, sharpness=0.5))


def test_forgetting_that_lost_too_much_accuracy_is_not_used() -> None:
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    settings = replace(JOINED, forgetting=BROKEN, distillation=5.0)
    off = replace(JOINED, forgetting=FIRST.lasting(0))
    expected, alone = off.harden(trained_digits(3), images, accelerator, validation=test)
    hardened, record = settings.harden(trained_digits(3), images, accelerator, validation=test)
    assert same_weights(hardened, expected)
    assert re.fullmatch(r"feature-shift lost [\d.]+ points of .* accuracy: went on without it", record.events[0])
    assert record.events[1:] == alone.events
    assert record.sample_gradients > alone.sample_gradients


def test_it_forgets_gently_where_forgetting_lost_too_much_accuracy() -> None:
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    off = replace(JOINED, forgetting=FIRST.lasting(0), distillation=5.0)
    start, gently = GENTLY.harden(trained_digits(3), images, accelerator)
    expected, bank = off.harden(start, images, accelerator, validation=test)
    settings = replace(JOINED, forgetting=BROKEN, gently=GENTLY, distillation=5.0)
    hardened, record = settings.harden(trained_digits(3), images, accelerator, validation=test)
    assert same_weights(hardened, expected)
    assert ["feature-shift lost" in event for event in record.events] == [True]
    phases = BROKEN.harden(trained_digits(3), images, accelerator)[1], gently, bank
    assert record.sample_gradients == sum(phase.sample_gradients for phase in phases)


def test_after_forgetting_gently_it_goes_part_of_the_way_from_the_original() -> None:
    images, test = digit_images(3)
    accelerator, original = Accelerator(cpu=True), trained_digits(3)
    gently = replace(GENTLY, schedule=replace(GENTLY.schedule, learning_rate=1.0))
    patient = replace(JOINED, schedule=replace(JOINED.schedule, steps=2, learning_rate=0.001))
    off = replace(patient, forgetting=FIRST.lasting(0))
    far, _ = off.harden(gently.harden(original, images, accelerator)[0], images, accelerator)
    answers = right_answers(original, test, accelerator.device)
    limit = patient.schedule.max_accuracy_loss
    assert points_lost(answers, right_answers(far, test, accelerator.device))[0] > limit
    settings = replace(patient, forgetting=FIRST.lasting(0), gently=gently)
    hardened, record = settings.harden(original, images, accelerator, validation=test)
    (event,) = record.events
    share = int(re.findall(r"the result is (\d+) % of the way from the original weights", event)[0]) / 100
    assert 0 < share < 1
    assert points_lost(answers, right_answers(hardened, test, accelerator.device))[0] <= limit
    for here, there, between in zip(*(each.parameters() for each in (original, far, hardened)), strict=True):
        torch.testing.assert_close(between, torch.lerp(here, there, share))


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
    images, test = digit_images(3)
    accelerator = Accelerator(cpu=True)
    random = torch.Generator().manual_seed(0)
    poor = trained_digits(3).clone()
    with torch.no_grad():
        for weight in poor.parameters():
            weight.add_(2 * weight.std(correction=0) * torch.randn(weight.shape, generator=random))
    gentle = replace(FIRST, pushed=0.0)
    better, _ = gentle.harden(poor, images, accelerator)
    gained = -points_lost(*(right_answers(each, test, accelerator.device) for each in (poor, better)))[0]
    assert gained > 10
    # A result is wanted that is better by half of it: better than the start, not better than after forgetting.
    moment = replace(JOINED.schedule, steps=1, learning_rate=1e-6, max_accuracy_loss=-gained / 2)
    settings = replace(JOINED, schedule=moment, forgetting=gentle)
    _, record = settings.harden(poor, images, accelerator, validation=test)
    assert ["of the way" in event for event in record.events] == [True]
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
