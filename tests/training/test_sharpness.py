"""Sharpness-aware steps: where the gradient is taken, and that nothing of it stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from phard_hub.defenses.removal.finetuning import FineTuning
from phard_hub.training.schedule import Schedule
from phard_hub.training.sharpness import uphill
from tests.small import PowerCutError, cut_at, digit_images, harden, same_weights, trained_digits

SCHEDULE = Schedule(steps=12, batch=32, learning_rate=0.05, clip=1e9, shift=0.0, flip=False, save_every=5)


def test_the_move_is_that_of_the_formula() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    weights = [weight.detach().numpy().copy() for weight in model.parameters()]
    slopes = [weight.grad.numpy() for weight in model.parameters() if weight.grad is not None]
    size = [abs(weight) if weight.ndim > 1 else np.ones_like(weight) for weight in weights]
    length = np.sqrt(sum(((each * slope) ** 2).sum() for each, slope in zip(size, slopes, strict=True)))
    with uphill(model, 0.7):
        moved = [weight.detach().numpy() - start for weight, start in zip(model.parameters(), weights, strict=True)]
    for move, each, slope in zip(moved, size, slopes, strict=True):
        np.testing.assert_allclose(move, 0.7 * each**2 * slope / length, rtol=1e-4, atol=1e-7)


def test_nothing_of_it_stays_in_weights_or_statistics() -> None:
    classifier = trained_digits(3).train().requires_grad_(True)
    classifier(digit_images(3)[0].batch(range(32))[0]).square().mean().backward()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}

    def leave() -> None:
        with uphill(classifier, 5.0):
            classifier(torch.rand(16, *digit_images(3)[0].pixels.shape[1:]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_the_step_is_taken_with_the_gradient_found_uphill() -> None:
    """One step by the loop, against one by hand."""
    images, classifier = digit_images(3)[0], trained_digits(3)
    # Half of the peak, and 1.9 of the first gradient: Nesterov's momentum counts it twice. A second step has no rate.
    schedule = replace(
        SCHEDULE, steps=2, batch=len(images), warm_up=0.9999, weight_decay=0.0, averaging=0.0, sharpness=3.0
    )

    def by_hand(*, uphill_by: float) -> list[torch.Tensor]:
        copy = classifier.clone().train().requires_grad_(True)
        weights = list(copy.parameters())
        kept = [weight.detach().clone() for weight in weights]

        def slopes() -> list[torch.Tensor]:
            loss = nn.functional.cross_entropy(copy(images.batch(range(len(images)))[0]), images.labels)
            return list(torch.autograd.grad(loss, weights))

        slope = slopes()
        size = [weight.abs() if weight.dim() > 1 else torch.ones_like(weight) for weight in kept]
        length = sum((each * way).square().sum() for each, way in zip(size, slope, strict=True)) ** 0.5
        with torch.no_grad():
            for weight, each, way in zip(weights, size, slope, strict=True):
                weight.add_(uphill_by * each**2 * way / length)
        return [start - 0.5 * SCHEDULE.learning_rate * 1.9 * way for start, way in zip(kept, slopes(), strict=True)]

    made, record = harden(FineTuning(schedule=schedule), classifier, images)
    off = [
        max((ours - theirs).abs().max().item() for ours, theirs in zip(made.parameters(), hands, strict=True))
        for hands in (by_hand(uphill_by=3.0), by_hand(uphill_by=0.0))
    ]
    assert off[0] < 1e-4 < off[1]
    assert record.sample_gradients == 2 * 2 * len(images)


def test_a_killed_run_continues_bit_for_bit(tmp_path: Path) -> None:
    images, classifier = digit_images(3)[0], trained_digits(3)
    tuning = FineTuning(schedule=replace(SCHEDULE, sharpness=1.0))
    whole, _ = harden(tuning, classifier, images)
    with pytest.raises(PowerCutError):
        harden(tuning, classifier, images, folder=tmp_path / "run", progress=cut_at(8))
    resumed, _ = harden(tuning, classifier, images, folder=tmp_path / "run")
    plain, _ = harden(FineTuning(schedule=SCHEDULE), classifier, images)
    assert same_weights(resumed, whole)
    assert not same_weights(whole, plain)
