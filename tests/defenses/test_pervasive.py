"""The defense: which triggers it trains against, what they cost, and that hardening makes them larger."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from phard_hub.attacks import Blend
from phard_hub.attacks.planting import plant
from phard_hub.defenses.pervasive import BACK_OFF, PervasiveHardening, _Objective
from phard_hub.evaluation import Threat, attack_outcome, evaluate, predict
from phard_hub.models.classifier import Classifier
from phard_hub.presets import CHEAPEST
from phard_hub.report.record import Hardening, PairDistance
from phard_hub.training import Schedule
from phard_hub.triggers.bank import Trigger
from phard_hub.triggers.pool import UNIVERSAL, all_pairs
from phard_hub.triggers.search import SearchSettings, measure
from tests.small import digit_images, same_weights, small_net, trained_digits, unmarked

SETTINGS = PervasiveHardening(
    schedule=Schedule(steps=80, batch=64, learning_rate=0.05, shift=0.0, flip=False),
    stamped=0.5,
    universal=0.5,
    head_start=30,
    head_start_batch=96,
    learning_rate=0.03,
    price=0.1,
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


@pytest.mark.parametrize("max_pairs", [1000, 5, 2])
@pytest.mark.parametrize("universal", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_trigger_fits_the_label_and_turns_it_to_another(classes: int, universal: float, max_pairs: int) -> None:
    made = objective(classes, replace(SETTINGS, universal=universal, max_pairs=max_pairs))
    pairs = min(classes * (classes - 1), max_pairs)
    assert len(made.directions) == pairs + (classes if classes > 2 else 0)
    labels = torch.arange(classes).repeat(300)
    rows = made.choose(labels, generator())
    source, target = made.directions.source[rows], made.directions.target[rows]
    assert bool((target != labels).all())
    assert bool(((source == labels) | (source == UNIVERSAL)).all())
    # All that can be used is used; where a pair was left out, the universal trigger stands in for it.
    kept = set(zip(made.directions.source.tolist(), made.directions.target.tolist(), strict=True))
    standing_in = {pairs + target for source, target in all_pairs(classes) if (source, target) not in kept}
    used = set(rows.tolist())
    count = len(made.directions)
    expected = set(range(count))
    if universal == 1.0 and classes > 2:
        expected = set(range(pairs, count))
    elif universal == 0.0:
        expected = set(range(pairs)) | standing_in
    assert used == expected
    if classes > 2 and pairs == classes * (classes - 1):
        assert (source == UNIVERSAL).float().mean().item() == pytest.approx(universal, abs=0.08)


@pytest.mark.parametrize("max_pairs", [1000, 3])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_triggers_share_what_their_classes_have_in_common(classes: int, max_pairs: int) -> None:
    made = objective(classes, replace(SETTINGS, max_pairs=max_pairs))
    assert len(made.components) == len(made.directions)
    shared: dict[int, set[tuple[str, int]]] = {}
    for row, components in enumerate(made.components.tolist()):
        source, target = int(made.directions.source[row]), int(made.directions.target[row])
        used = [component for component in components if component >= 0]
        assert all(component < len(made.bank) for component in used)
        if source == UNIVERSAL:
            meanings = [("target", target)]
        else:
            meanings = [("target", target), ("source", source), ("own", row)]
        for component, meaning in zip(used, meanings, strict=True):
            shared.setdefault(component, set()).add(meaning)
    # Each component means one thing.
    assert all(len(meanings) == 1 for meanings in shared.values())
    assert len(shared) == len(set().union(*shared.values()))


def test_all_other_classes_are_targets_equally_often() -> None:
    made = objective(4)
    labels = torch.full((3000,), 2)
    targets = made.directions.target[made.choose(labels, generator())]
    assert torch.bincount(targets, minlength=4).tolist() == pytest.approx([1000, 1000, 0, 1000], abs=120)


def test_the_same_generator_chooses_the_same() -> None:
    made, labels = objective(3), torch.arange(3).repeat(20)
    assert torch.equal(made.choose(labels, generator(1)), made.choose(labels, generator(1)))
    assert not torch.equal(made.choose(labels, generator(1)), made.choose(labels, generator(2)))


def trigger(made: _Objective, row: int) -> Trigger:
    """One direction's trigger as a function on pixels."""

    def stamp(pixels: Tensor) -> Tensor:
        stamped: Tensor = made.bank(pixels, made.components[row].expand(len(pixels), -1))
        return stamped

    return stamp


def test_the_head_start_finds_a_trigger_that_works() -> None:
    """Against a backdoored classifier, where a small trigger to one class exists."""
    classifier, (images, test) = backdoored(), digit_images(3)
    made = _Objective(SETTINGS, classifier, classifier.clone(), images, Accelerator(cpu=True), 0)

    def turned() -> float:
        shares = []
        for row in (made.directions.target == TARGET).nonzero().flatten().tolist():
            source = int(made.directions.source[row])
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


def test_backing_off_makes_the_triggers_smaller() -> None:
    made = objective(3)
    before = made.budget
    made.back_off()
    assert made.budget == before * BACK_OFF < before
    assert f"{100 * BACK_OFF:.0f} %" in made.easier


def test_a_saved_objective_goes_on_as_it_was() -> None:
    one, other = objective(3), objective(3)
    one._head_start(generator(4))
    one.back_off()
    other.load_state_dict(deepcopy(one.state_dict()))
    pixels, labels = digit_images(3)[0].batch(range(16))
    losses = [made.loss(made.plain, pixels, labels, 7).item() for made in (one, other)]
    assert losses[0] == losses[1]
    assert same_weights(one.bank, other.bank)
    assert one.sample_gradients == other.sample_gradients
    assert one.budget == other.budget < objective(3).budget
    assert torch.equal(one.price, other.price)


@pytest.mark.parametrize("distillation", [1.0, 0.0])
def test_samples_are_counted_exactly(distillation: float) -> None:
    steps, batch, head_start, head_start_batch = 5, 20, 2, 12
    settings = replace(
        SETTINGS,
        schedule=Schedule(steps=steps, batch=batch, flip=False),
        stamped=0.25,
        head_start=head_start,
        head_start_batch=head_start_batch,
        distillation=distillation,
    )
    images = digit_images(3)[0]
    _, record = settings.harden(small_net(3), images, Accelerator(cpu=True))
    # In a step the bank looks at 5 images, the model at 20 clean and 5 stamped ones.
    assert record.sample_gradients == head_start * head_start_batch + steps * (5 + 25)
    assert record.sample_forwards == (steps * batch if distillation else 0)


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
