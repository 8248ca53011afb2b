"""The defense: which triggers it trains against, what they cost, and that hardening makes them larger."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from phard_hub.attacks import Blend
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.defenses.hardening.adversarial import AdversarialTraining, _Objective
from phard_hub.defenses.pervasive import PervasiveHardening
from phard_hub.draws import Draws
from phard_hub.evaluation.threats import Threat, attack_outcome, evaluate, predict
from phard_hub.models.classifier import Classifier
from phard_hub.presets import CHEAPEST
from phard_hub.report.distances import PairDistance
from phard_hub.report.record import Hardening
from phard_hub.training.schedule import Schedule
from phard_hub.triggers.bank import Trigger, change_size
from phard_hub.triggers.pool import UNIVERSAL
from phard_hub.triggers.search import SearchSettings, measure
from tests.small import batch, digit_images, harden, job, same_weights, small_net, trained_digits, unmarked

SETTINGS = AdversarialTraining(
    schedule=Schedule(steps=80, batch=64, learning_rate=0.05, shift=0.0, flip=False),
    stamped=0.5,
    universal=0.5,
    head_start=30,
    head_start_batch=96,
    learning_rate=0.03,
    price=0.1,
)


TARGET = 1
SEARCH = SearchSettings(steps=80, batch=8, fit_images=40, choosing_images=25, judging_images=25, price=0.3, kinds=())
THREAT = Threat(name="blend", trigger=Blend(alpha=0.15), target=TARGET)


@cache
def backdoored() -> Classifier:
    """A classifier of digits that a faint pattern sends to class 1."""
    images, _ = digit_images(3)
    schedule = Schedule(steps=200, batch=64, learning_rate=0.05, shift=0.0, flip=False)
    attack = Blend(alpha=0.15)
    return train_poisoned(small_net(3), images, attack, target=TARGET, schedule=schedule, job=job())


def objective(classes: int, settings: AdversarialTraining = SETTINGS) -> _Objective:
    classifier = trained_digits(classes)
    return _Objective(settings, classifier, classifier.clone(), digit_images(classes)[0], job())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_triggers_that_work_are_chosen_more_often() -> None:
    made = objective(4)
    labels = torch.full((4000,), 2)
    even = torch.bincount(made.choose(labels, Draws.seeded(0, 4000)), minlength=len(made.triggers))
    works = int(((made.triggers.source == 2) & (made.triggers.target == 1)).nonzero())
    made.running[works] = 0.9
    worked = torch.bincount(made.choose(labels, Draws.seeded(0, 4000)), minlength=len(made.triggers))
    assert (worked > 2 * even).nonzero().flatten().tolist() == [works]


def trigger(made: _Objective, row: int) -> Trigger:
    """One direction's trigger as a function on pixels."""

    def stamp(pixels: Tensor) -> Tensor:
        stamped: Tensor = made.bank(
            pixels, made.components[row].expand(len(pixels), -1), made.strengths[row].expand(len(pixels), -1)
        )
        return stamped

    return stamp


def test_triggers_are_stamped_at_half_of_the_budget_to_all_of_it() -> None:
    made = objective(3, replace(SETTINGS, budget=4.0))
    with torch.no_grad():
        for parameter in made.bank.parameters():
            parameter.zero_()
        made.bank.get_parameter("values").fill_(0.05)
    images = digit_images(3)[0]
    pixels = 0.4 + 0.2 * images.batch(range(64))[0]  # nothing is cut off
    level = pixels[0].numel() ** 0.5 / 255
    for row in (0, len(made.triggers) - 1):  # of all kinds, and of the field alone
        with torch.no_grad():
            sizes = change_size(made._stamped(pixels, torch.full((64,), row), Draws.seeded(0, 64)), pixels) / level
        assert 2.0 <= sizes.min() < 2.4
        assert 3.6 < sizes.max() <= 4.0 + 1e-4


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_images_with_random_triggers_come_on_top_under_their_own_labels(share: float) -> None:
    made = objective(3, replace(SETTINGS, stamped=0.5, random=share, head_start=0))
    given = batch(digit_images(3)[0], 32, step=1)
    pixels, labels = given.pixels, given.labels
    seen: list[Tensor] = []
    model = made.plain.eval().requires_grad_(False)
    handle = model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    loss = made.loss(model, given)
    handle.remove()
    count = round(32 * share)
    assert made.sample_gradients == 32 + 16 + 16 + count  # and 16 by the bank
    shown, (follows, by_chance) = seen[-1], seen[-1][32:].split([16, count])
    assert torch.equal(shown[:32], pixels)
    shift = change_size(by_chance, pixels[32 - count :]) / (pixels[0].numel() ** 0.5 / 255)
    assert not share or 4 < shift.max() <= SETTINGS.random_budget + 1e-3
    expected = torch.cat([labels, labels[:16], labels[32 - count :]])
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(model(shown), expected).item(), rel=1e-4)
    assert len(follows) == 16


def test_the_bank_has_one_head_start_however_often_a_step_asks() -> None:
    made = objective(3, replace(SETTINGS, head_start=7, head_start_batch=10))
    costs = []
    for _ in range(2):
        made.loss(made.plain, batch(digit_images(3)[0], 32))
        costs.append(made.sample_gradients)
    assert costs == [70 + 64, 70 + 2 * 64]


def test_the_head_start_finds_a_trigger_that_works() -> None:
    """Against a backdoored classifier, where a small trigger to one class exists."""
    classifier, (images, test) = backdoored(), digit_images(3)
    made = _Objective(SETTINGS, classifier, classifier.clone(), images, job())

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
    for _ in range(5):  # away from the original, to which there is no divergence at the start
        made.plain.load_state_dict({k: v + 0.05 for k, v in made.plain.state_dict().items()})
    other.plain.load_state_dict(made.plain.state_dict())
    other.back_off()
    losses = [each.loss(each.plain, batch(digit_images(3)[0], 16, step=1)).item() for each in (made, other)]
    assert losses[1] > losses[0]


def test_a_saved_objective_goes_on_as_it_was() -> None:
    one, other = objective(3), objective(3)
    one._head_start(generator(4))
    for _ in range(3):
        one.back_off()
    other.load_state_dict(deepcopy(one.state_dict()))
    losses = [made.loss(made.plain, batch(digit_images(3)[0], 16, step=7)).item() for made in (one, other)]
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
    _, record = harden(settings, small_net(3), images)
    # In a step the bank looks at 5 images, the model at 20 clean and 5 stamped ones.
    assert record.sample_gradients == head_start * head_start_batch + steps * (5 + 25)
    assert record.sample_forwards == 0  # the original is asked only when the guard has acted


def test_the_record_says_how_it_was_done() -> None:
    images, validation = digit_images(3)
    _, record = harden(CHEAPEST.defense, trained_digits(), images, seed=5, validation=validation)
    assert record.defense == PervasiveHardening.name == "pervasive"
    assert record.settings == asdict(CHEAPEST.defense)
    assert (record.seed, record.images) == (5, len(images))
    assert [point.step for point in record.curve] == [4, 8]
    assert all(0 <= (point.bank_success or 0) <= 1 and (point.bank_distance or 0) > 0 for point in record.curve)
    assert Hardening.model_validate_json(record.model_dump_json()).curve == record.curve


@pytest.mark.parametrize("classes", [2, 3])
def test_no_stamp_and_no_learning_rate_change_nothing(classes: int) -> None:
    settings = replace(SETTINGS, schedule=Schedule(steps=4, batch=16, learning_rate=0.0, flip=False), head_start=1)
    classifier = trained_digits(classes)
    hardened, _ = harden(settings, classifier, digit_images(classes)[0])
    for (name, before), after in zip(classifier.named_parameters(), hardened.parameters(), strict=True):
        assert torch.equal(before, after), name


@cache
def hardened(learning_rate: float) -> Classifier:
    """Hardened with a bank of this learning rate; with none it keeps its random start and finds nothing."""
    settings = replace(SETTINGS, learning_rate=learning_rate)
    return harden(settings, backdoored(), digit_images(3)[0])[0]


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
