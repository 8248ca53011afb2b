"""ANP: which channels are pruned, how many, and what the masks are trained against."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from phard_hub.defenses.removal.anp import NeuronPruning, _Masked, _Objective, without
from tests.defenses.planted import defended, defenders, left, planted, short
from tests.small import batch, guard, harden, job, same_weights, trained_digits

SETTINGS = short(NeuronPruning())


def event(settings: NeuronPruning) -> str:
    return defended(settings)[1].phases[0].events[-1]


def test_other_channels_in_the_same_number_do_not_carry_the_pattern() -> None:
    pruned = defended(SETTINGS)[0].network.state_dict()
    masks, by_chance = {}, torch.Generator().manual_seed(0)
    for name in ("1.weight", "4.weight"):
        gone = (pruned[name] == 0).float()
        masks[name] = 1 - gone[torch.randperm(len(gone), generator=by_chance)]
    assert left(without(planted(), masks, 0.5)).success > 2 * left(defended(SETTINGS)[0]).success


def test_only_weights_of_norms_change() -> None:
    before, after = planted().state_dict(), defended(SETTINGS)[0].state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed <= {"network.1.weight", "network.4.weight"}
    assert all(((after[name] == before[name]) | (after[name] == 0)).all() for name in changed)


@pytest.mark.parametrize("allowed", [0.02, 0.1, 0.4])
def test_the_threshold_is_the_largest_that_the_accuracy_allows(allowed: float) -> None:
    judge = guard(planted(), defenders()[1])
    assert judge is not None
    masks = {"1.weight": torch.linspace(0, 1, 16), "4.weight": torch.linspace(0, 1, 32)}
    made, said = replace(SETTINGS, loss_allowed=allowed)._pruned(planted(), masks, judge)
    least, threshold = (1 - allowed) * float(judge.known.mean()), float(said[-4:])
    assert judge.look(made).accuracy >= least
    assert judge.look(without(planted(), masks, threshold + SETTINGS.spacing)).accuracy < least
    assert f"{sum(int((mask <= threshold).sum()) for mask in masks.values())} of 48 channels" in said


def test_only_thresholds_that_are_asked_for_are_tried() -> None:
    assert "masks up to 0.90" in event(SETTINGS)
    half = replace(SETTINGS, highest=0.5, spacing=0.5)
    assert any(f"masks up to {threshold}" in event(half) for threshold in ("0.50", "0.00"))


def test_without_validation_images_those_at_hand_decide() -> None:
    images, _ = defenders()
    made, record = harden(SETTINGS, planted(), images)
    assert record.phases[0].points_lost is None
    assert not same_weights(made, planted())


@pytest.mark.parametrize("steps", [1, 3])
def test_the_push_makes_the_loss_larger(steps: int) -> None:
    classifier, images = trained_digits(3).eval(), defenders()[0]
    classifier.network = _Masked(classifier.network)
    settings = replace(SETTINGS, inner_steps=steps)
    objective, some = _Objective(settings, classifier, job()), batch(images, 64)
    push = objective._push(some)
    assert all(each.abs().max() <= 2 * settings.epsilon + 1e-6 for each in push)
    losses = {}
    for factor in (0.0, 0.1, -0.1):  # a small step along it, and one against it
        objective.masked.push = [factor * each for each in push]
        with torch.no_grad():
            losses[factor] = float(objective._losses(classifier, some).mean())
    assert losses[0.1] > losses[-0.1]


def test_a_masked_network_without_masks_is_the_network() -> None:
    classifier, pixels = trained_digits(3).eval(), batch(defenders()[0], 8).pixels
    masked = classifier.clone()
    masked.network = _Masked(masked.network)
    assert torch.allclose(masked(pixels), classifier(pixels), atol=1e-6)
