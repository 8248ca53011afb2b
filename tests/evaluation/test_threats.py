"""Evaluation: each number against a slow second look, and what an attack may and may not do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from phard_hub.attacks import Blend
from phard_hub.errors import ImagesError, InputError
from phard_hub.evaluation.threats import (
    PGD,
    Threat,
    attack_outcome,
    defense_effectiveness,
    evaluate,
    natural_vulnerability,
    predict,
    robust_accuracy,
)
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import frozen
from phard_hub.report.distances import Rate
from phard_hub.report.statistics import rate
from phard_hub.triggers.bank import Trigger
from tests.small import Linear, as_classifier, digit_images, noise_images, small_net, trained_digits

PGD_5 = PGD(epsilon=0.1, steps=5, step_size=0.03)


def test_pgd_stays_in_the_ball_and_in_the_range() -> None:
    classifier, images = trained_digits(), digit_images(3)[1]
    pixels, labels = images.batch(range(40))
    kept = pixels.clone()
    with frozen(classifier):
        moved = PGD_5.perturb(classifier, pixels, labels, torch.Generator().manual_seed(0))
    assert not moved.requires_grad
    assert torch.equal(pixels, kept)
    assert (moved - pixels).abs().max().item() <= PGD_5.epsilon + 1e-6
    assert (moved - pixels).abs().max().item() > 0.9 * PGD_5.epsilon
    assert 0 <= moved.min().item() <= moved.max().item() <= 1


def test_pgd_lowers_the_accuracy_more_with_a_larger_ball() -> None:
    classifier, images = trained_digits(), digit_images(3)[1]
    clean = evaluate(classifier, images).accuracy.value
    robust = [
        robust_accuracy(classifier, images, replace(PGD_5, epsilon=epsilon, step_size=epsilon / 3)).value
        for epsilon in (0.0, 0.1, 0.3)
    ]
    assert robust[0] == clean > 0.95
    assert robust[0] > robust[1] + 0.02
    assert robust[1] > robust[2] + 0.1


def test_pgd_finds_the_worst_corner_of_a_linear_classifier() -> None:
    """For two classes the worst change is epsilon against the sign of the difference of their weights."""
    weight = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    classifier = as_classifier(Linear(weight, torch.zeros(2)), 2, (1, 8, 8))
    pixels = 0.3 + 0.4 * torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1] * 3)
    pgd = PGD(epsilon=0.05, steps=10, step_size=0.02)
    with frozen(classifier):
        moved = pgd.perturb(classifier, pixels, labels, torch.Generator().manual_seed(2))
    direction = (weight[1 - labels] - weight[labels]).sign().view_as(pixels)
    assert torch.allclose(moved, pixels + 0.05 * direction, atol=1e-6)


def test_pgd_attacks_at_most_so_many_images_and_the_seed_chooses_which() -> None:
    classifier, images = trained_digits(), digit_images(3)[1]
    assert robust_accuracy(classifier, images, replace(PGD_5, images=30)).n == 30
    assert robust_accuracy(classifier, images, PGD_5).n == len(images)
    one, same = (robust_accuracy(classifier, images, replace(PGD_5, images=50), seed=1) for _ in range(2))
    assert one == same


def test_the_name_of_pgd() -> None:
    assert str(PGD()) == "PGD-20, Linf 8/255"
    assert str(PGD(epsilon=0.5 / 255, steps=3)) == "PGD-3, Linf 0.5/255"


def marker(target: int) -> Threat:
    """A bright corner, which `corner_reader` answers with class 1."""

    def stamp(pixels: Tensor) -> Tensor:
        stamped = pixels.clone()
        stamped[:, :, 0, 0] = 1.0
        return stamped

    return Threat(name="corner", trigger=stamp, target=target)


def corner_case() -> tuple[Linear, LabelledImages]:
    """Class k has pixel k of the second row lit; the corner pixel shouts class 1, but not for class 2."""
    levels = torch.zeros(30, 1, 8, 8, dtype=torch.uint8)
    labels = torch.arange(30) % 3
    levels[torch.arange(30), 0, 1, labels] = 255
    weight = torch.zeros(3, 64)
    weight[torch.arange(3), 8 + torch.arange(3)] = torch.tensor([1.0, 1.0, 9.0])
    weight[1, 0] = 5.0
    return Linear(weight, torch.zeros(3)), LabelledImages(levels, labels, ("a", "b", "c"), "corner")


def test_attack_success_is_over_images_of_other_classes_alone() -> None:
    network, images = corner_case()
    outcome = attack_outcome(as_classifier(network, 3, (1, 8, 8)), images, marker(1))
    # Ten images of class a are turned, ten of class c are not, and the ten of class b do not count.
    assert outcome.success == rate(10, 20)
    assert outcome.recovered == rate(10, 20)
    assert outcome.reference is None
    assert (outcome.name, outcome.target) == ("corner", 1)
    assert outcome.size == pytest.approx(1.0)
    missed = attack_outcome(as_classifier(network, 3, (1, 8, 8)), images, marker(0))
    # With class a as the target: b stays b, c stays c.
    assert missed.success == rate(0, 20)
    assert missed.recovered == rate(20, 20)


def test_the_reference_is_judged_on_the_same_trigger() -> None:
    network, images = corner_case()
    deaf = Linear(network.weight.detach().clone(), torch.zeros(3))
    with torch.no_grad():
        deaf.weight[1, 0] = 0.0
    classifier, reference = (as_classifier(each, 3, (1, 8, 8)) for each in (network, deaf))
    outcome = attack_outcome(classifier, images, marker(1), reference=reference)
    assert outcome.reference == rate(0, 20)
    assert outcome.success == rate(10, 20)


def test_predict_against_a_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phard_hub.images.labelled.images_at_once", lambda _shape: 250)
    images = noise_images(90, 3, (1, 8, 8))
    classifier, attack = small_net(3).eval(), Blend()
    predictions, sizes = predict(classifier, images, attack)
    plain, zeros = predict(classifier, images)
    assert zeros.tolist() == [0.0] * 270
    # More images than fit in one pass, in their order.
    for number in (0, 1, 249, 250, 251, 269):
        pixels = images.pixels[number : number + 1].float() / 255
        with torch.no_grad():
            assert predictions[number] == classifier(attack(pixels)).argmax()
            assert plain[number] == classifier(pixels).argmax()
        squares = [
            (a - b) ** 2 for a, b in zip(attack(pixels).flatten().tolist(), pixels.flatten().tolist(), strict=True)
        ]
        assert sizes[number].item() == pytest.approx(math.sqrt(sum(squares)), rel=1e-4)


def test_evaluate_puts_it_all_together() -> None:
    network, images = corner_case()
    classifier = as_classifier(network, 3, (1, 8, 8))
    calls: list[tuple[str, int, int]] = []
    result = evaluate(classifier, images, [marker(1), marker(0)], pgd=PGD_5, progress=lambda *call: calls.append(call))
    assert result.accuracy == rate(30, 30)
    assert result.robust_accuracy == robust_accuracy(classifier, images, PGD_5)
    assert result.robust_attack == str(PGD_5)
    assert [attack.target for attack in result.attacks] == [1, 0]
    done = [call[1] for call in calls]
    assert done == sorted(done)
    assert (done[0], calls[-1][1:]) == (0, (4, 4))


def test_what_is_not_asked_for_is_left_out() -> None:
    network, images = corner_case()
    result = evaluate(as_classifier(network, 3, (1, 8, 8)), images)
    assert (result.robust_accuracy, result.robust_attack, result.attacks) == (None, "", ())


def test_accuracy_is_the_share_of_right_answers() -> None:
    network, images = corner_case()
    wrong = LabelledImages(images.pixels, (images.labels + (torch.arange(30) < 6)) % 3, images.names, images.source)
    assert evaluate(as_classifier(network, 3, (1, 8, 8)), wrong).accuracy == rate(24, 30)


# What FT-SAM prints: accuracy and success before and after, in percent, and its rating
PRINTED = [
    ((93.44, 92.44), (97.71, 4.91), 95.90),
    ((93.47, 92.75), (99.99, 4.12), 97.57),
    ((94.03, 94.11), (98.35, 98.98), 50.00),
    ((84.49, 91.16), (97.87, 0.80), 98.53),
    ((92.80, 52.81), (98.90, 11.86), 73.52),
]


@pytest.mark.parametrize(("accuracy", "success", "printed"), PRINTED)
def test_the_rating_is_that_of_its_authors(
    accuracy: tuple[float, float], success: tuple[float, float], printed: float
) -> None:
    def rates(values: tuple[float, float]) -> tuple[Rate, Rate]:
        before, after = (rate(round(100 * value), 10_000) for value in values)
        return before, after

    rating = defense_effectiveness(rates(accuracy), rates(success))
    assert 100 * rating.value == pytest.approx(printed, abs=0.011)
    assert 0 <= rating.low <= rating.value <= rating.high <= 1
    assert rating.high - rating.low < 0.02


def test_the_rating_covers_what_happens_when_models_are_judged_again() -> None:
    """Images drawn anew: 95 % of the intervals hold the true rating, or more."""
    random = np.random.default_rng(0)
    true = {"accuracy": (0.92, 0.9), "success": (0.97, 0.1)}
    expected = (0.97 - 0.1 - (0.92 - 0.9) + 1) / 2
    held = []
    for _ in range(300):
        drawn = [tuple(rate(int(random.binomial(400, share)), 400) for share in shares) for shares in true.values()]
        rating = defense_effectiveness(*drawn)  # type: ignore[arg-type]
        held.append(rating.low <= expected <= rating.high)
    assert 0.92 <= np.mean(held) <= 1


def test_doing_nothing_is_rated_half_and_breaking_a_model_nothing() -> None:
    same = rate(90, 100)
    assert defense_effectiveness((same, same), (same, same)).value == 0.5
    assert defense_effectiveness((rate(100, 100), rate(0, 100)), (same, same)).value == 0.0
    assert defense_effectiveness((same, same), (rate(100, 100), rate(0, 100))).value == 1.0


def light(corner: int, level: float) -> Trigger:
    """Write a level into one pixel of the first row."""

    def stamp(pixels: Tensor) -> Tensor:
        stamped = pixels.clone()
        stamped[:, :, 0, corner] = level
        return stamped

    return stamp


def test_natural_vulnerability_is_the_best_trigger_and_target_of_each_family() -> None:
    """The corner shouts class 1 as far as it is lit, but not for class 2; the pixel beside it says nothing."""
    network, images = corner_case()
    classifier = as_classifier(network, 3, (1, 8, 8))
    families = {"corner": [light(0, 0.1), light(0, 1.0), light(0, 0.15)], "deaf": [light(1, 1.0)]}
    best, none = natural_vulnerability(classifier, images, families)
    # Half of the images judge: five of class a, which are turned, and five of class c, which are not.
    assert (best.name, best.target, best.success, best.untouched) == ("corner", 1, rate(5, 10), rate(0, 10))
    assert best.size == pytest.approx(1.0)
    assert none.success == rate(0, 10)


def test_a_choice_does_not_flatter_the_natural_vulnerability() -> None:
    """Where all triggers are alike, a choice among many is no better than one of them."""
    images = noise_images(60, 3, (1, 8, 8))
    classifier = small_net(3).eval()
    random = torch.Generator().manual_seed(0)
    triggers = [
        lambda pixels, noise=noise: (pixels + noise).clamp(0, 1)
        for noise in 0.02 * torch.randn(20, 1, 8, 8, generator=random)
    ]
    (found,) = natural_vulnerability(classifier, images, {"noise": triggers})
    assert found.success.n == found.untouched.n == 60
    assert found.success.value == pytest.approx(found.untouched.value, abs=0.15)


def test_natural_vulnerability_needs_images_to_choose_and_to_judge() -> None:
    network, images = corner_case()
    with pytest.raises(ImagesError, match="Give more images"):
        natural_vulnerability(as_classifier(network, 3, (1, 8, 8)), images.take([0]), {"corner": [light(0, 1.0)]})


def test_a_trigger_for_a_class_that_is_not_there_is_refused() -> None:
    """A folder of `phard plant` from a model of more classes."""
    images = noise_images(5, 3, (1, 8, 8))
    with pytest.raises(InputError, match=r"produces class 7, but the last one is 2\. Give a backdoor"):
        attack_outcome(small_net(3), images, Threat(name="x", trigger=lambda pixels: pixels, target=7))
