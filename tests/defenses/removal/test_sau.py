"""SAU: its images fool the copy and the original alike, and only those that fool the original are unlearnt."""

from __future__ import annotations

import torch

from phard_hub.defenses.removal.sau import SharedUnlearning, _Objective
from tests.defenses.planted import defenders, planted, short
from tests.small import batch, unmarked

SETTINGS = short(SharedUnlearning())


def objective() -> _Objective:
    return _Objective(SETTINGS, planted().clone().eval(), planted().clone().eval())


def test_changed_images_fool_both_models_more_often_than_chance() -> None:
    made, some = objective(), batch(defenders()[0], 128)
    with unmarked(made.plain, made.original):
        changed = made._changed(some)
    assert (changed - some.pixels).abs().max() <= SETTINGS.epsilon + 1e-6
    noise = some.pixels + SETTINGS.epsilon * (2 * torch.rand(some.pixels.shape) - 1).sign()

    def shared(pixels: torch.Tensor) -> float:
        answers = made.plain(pixels).argmax(1), made.original(pixels).argmax(1)
        return float(((answers[0] == answers[1]) & (answers[0] != some.labels)).float().mean())

    assert shared(changed) > shared(noise) + 0.1


def test_what_is_shared_counts_and_what_is_not_does_not() -> None:
    made, some = objective(), batch(defenders()[0], 64)
    both = float(made.loss(made.plain, some).detach())
    made._changed = lambda batch: batch.pixels  # type: ignore[method-assign]
    clean = float(made.loss(made.plain, some).detach())  # unchanged images fool nobody
    assert both > clean
