"""The defense: which triggers it trains against, what they cost, and that hardening makes them larger."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache

import pytest
import torch
from accelerate import Accelerator

from phard_hub.defenses.pervasive import PervasiveHardening, _Objective
from phard_hub.evaluation import predict
from phard_hub.models.classifier import Classifier
from phard_hub.presets import CHEAPEST
from phard_hub.report.record import ClassDistances, Hardening
from phard_hub.training import Schedule
from phard_hub.triggers.pool import UNIVERSAL
from phard_hub.triggers.search import SearchSettings, measure
from tests.small import digit_images, same_weights, small_net, trained_digits, unmarked

SETTINGS = replace(CHEAPEST.defense, head_start=30, head_start_batch=96)


def objective(classes: int, settings: PervasiveHardening = SETTINGS) -> _Objective:
    classifier = trained_digits(classes)
    return _Objective(settings, classifier, classifier.clone(), digit_images(classes)[0], Accelerator(cpu=True), 0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("max_pairs", [1000, 5, 1])
@pytest.mark.parametrize("universal", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_trigger_fits_the_label_and_turns_it_to_another(classes: int, universal: float, max_pairs: int) -> None:
    made = objective(classes, replace(SETTINGS, universal=universal, max_pairs=max_pairs))
    pairs = min(classes * (classes - 1), max_pairs)
    if classes == 2 and max_pairs == 1:
        pytest.skip("with two classes and one pair, half of the images have no trigger")
    assert len(made.directions) == pairs + (classes if classes > 2 else 0) == len(made.bank)
    labels = torch.arange(classes).repeat(300)
    rows = made.choose(labels, generator())
    source, target = made.directions.source[rows], made.directions.target[rows]
    assert bool((target != labels).all())
    assert bool(((source == labels) | (source == UNIVERSAL)).all())
    # All that can be used is used.
    used = set(rows.tolist())
    count = len(made.directions)
    expected = set(range(count))
    if universal == 1.0 and classes > 2:
        expected = set(range(pairs, count))
    elif universal == 0.0 and pairs == classes * (classes - 1):
        expected = set(range(pairs))
    assert used == expected
    if classes > 2 and pairs == classes * (classes - 1):
        assert (source == UNIVERSAL).float().mean().item() == pytest.approx(universal, abs=0.08)


def test_all_other_classes_are_targets_equally_often() -> None:
    made = objective(4)
    labels = torch.full((3000,), 2)
    targets = made.directions.target[made.choose(labels, generator())]
    assert torch.bincount(targets, minlength=4).tolist() == pytest.approx([1000, 1000, 0, 1000], abs=120)


def test_the_same_generator_chooses_the_same() -> None:
    made, labels = objective(3), torch.arange(3).repeat(20)
    assert torch.equal(made.choose(labels, generator(1)), made.choose(labels, generator(1)))
    assert not torch.equal(made.choose(labels, generator(1)), made.choose(labels, generator(2)))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_start_makes_triggers_that_work(classes: int) -> None:
    made, test = objective(classes), digit_images(classes)[1]

    def turned() -> float:
        shares = []
        for row, (source, target) in enumerate(
            zip(made.directions.source.tolist(), made.directions.target.tolist(), strict=True)
        ):
            others = test.labels != target if source == UNIVERSAL else test.labels == source
            images = test.take(others.nonzero().flatten())
            predictions, _ = predict(made.plain, images, made.bank.trigger(row))
            shares.append((predictions == target).float().mean().item())
        return sum(shares) / len(shares)

    before = turned()
    with unmarked(made.plain, made.teacher):
        made._head_start(generator())
    assert before < 0.1
    assert turned() > before + 0.3
    success, size = made.observed()
    assert success > 0.3
    assert size > 0.1


def test_the_price_rises_with_success_and_falls_without() -> None:
    made = objective(3)
    before, rows = made.price.clone(), torch.tensor([0, 0, 1])
    for _ in range(40):
        made._follow(rows, torch.tensor([1.0, 1.0, 0.0]), torch.tensor([2.0, 4.0, 1.0]))
    assert made.price[0] > before[0]
    assert made.price[1] < before[1]
    assert torch.equal(made.price[2:], before[2:])
    assert made.running[:3].tolist() == pytest.approx([1, 0, 0], abs=0.01)
    assert made.sizes[:3].tolist() == pytest.approx([3, 1, 0], abs=0.05)


def test_backing_off_halves_the_stamped_images() -> None:
    made = objective(3)
    made.back_off()
    assert made.share == SETTINGS.stamped / 2


def test_a_saved_objective_goes_on_as_it_was() -> None:
    one, other = objective(3), objective(3)
    one._head_start(generator(4))
    one.back_off()
    other.load_state_dict(one.state_dict())
    pixels, labels = digit_images(3)[0].batch(range(16))
    losses = [made.loss(made.plain, pixels, labels, 7).item() for made in (one, other)]
    assert losses[0] == losses[1]
    assert same_weights(one.bank, other.bank)
    assert one.sample_gradients == other.sample_gradients
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


SEARCH = SearchSettings(steps=60, batch=8, fit_images=40, heldout_images=25)


@cache
def before_and_after() -> tuple[ClassDistances, ClassDistances, Classifier, Hardening]:
    """Distances of a digits classifier before and after a short hardening."""
    images, _ = digit_images(3)
    classifier = trained_digits()
    schedule = Schedule(steps=80, batch=64, learning_rate=0.02, shift=0.0, flip=False)
    hardened, record = replace(SETTINGS, schedule=schedule).harden(classifier, images, Accelerator(cpu=True))
    return measure(classifier, images, SEARCH).distances, measure(hardened, images, SEARCH).distances, hardened, record


@pytest.mark.parametrize("kind", ["pairs", "universal"])
def test_hardening_makes_the_triggers_larger(kind: str) -> None:
    before, after, _, _ = before_and_after()
    ratios = [
        later.distance / earlier.distance
        for earlier, later in zip(getattr(before, kind), getattr(after, kind), strict=True)
        if earlier.distance and later.distance
    ]
    assert len(ratios) >= 2
    assert sum(ratios) / len(ratios) > 1.2


def test_hardening_keeps_the_accuracy() -> None:
    test = digit_images(3)[1]
    predictions, _ = predict(before_and_after()[2], test)
    assert (predictions == test.labels).float().mean().item() > 0.95


def test_training_without_triggers_hardens_less() -> None:
    """The gain comes from the triggers and not from more training."""
    before, after, _, _ = before_and_after()
    images, _ = digit_images(3)
    schedule = Schedule(steps=80, batch=64, learning_rate=0.02, shift=0.0, flip=False)
    idle = replace(SETTINGS, schedule=schedule, learning_rate=0.0)
    trained, _ = idle.harden(trained_digits(), images, Accelerator(cpu=True))
    without = measure(trained, images, SEARCH).distances
    assert before.mean is not None
    assert after.mean is not None
    assert without.mean is not None
    assert after.mean / before.mean > without.mean / before.mean + 0.1
