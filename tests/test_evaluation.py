"""Evaluation: each number against a slow second look, and what an attack may and may not do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from phard_hub.attacks import Blend
from phard_hub.evaluation import PGD, Threat, attack_outcome, evaluate, predict, robust_accuracy
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import frozen
from phard_hub.statistics import rate
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
    one, same = (robust_accuracy(classifier, images, replace(PGD_5, images=50, seed=1)) for _ in range(2))
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
    monkeypatch.setattr("phard_hub.evaluation.images_at_once", lambda _shape: 250)
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
