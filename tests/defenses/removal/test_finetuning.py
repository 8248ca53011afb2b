"""The baseline: the one loop, clean images, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.defenses.removal.finetuning import FineTuning
from phard_hub.evaluation.threats import evaluate
from phard_hub.training.schedule import Schedule
from tests.small import PowerCutError, cut_at, digit_images, harden, job, same_weights, small_net, unmarked

DEFENSE = FineTuning(schedule=Schedule(steps=40, batch=32, learning_rate=0.05, shift=0.0, flip=False, save_every=10))


def test_it_trains_on_clean_images_only() -> None:
    """Just what planting without an attack does."""
    images, test = digit_images(3)
    classifier = small_net(3)
    with unmarked(classifier):
        tuned, record = harden(DEFENSE, classifier, images, seed=3)
    honest = train_poisoned(classifier, images, None, target=0, schedule=DEFENSE.schedule, job=job(seed=3))
    assert same_weights(tuned, honest)
    assert evaluate(tuned, test).accuracy.value > evaluate(classifier, test).accuracy.value + 0.2
    assert (record.defense, record.seed, record.images) == ("fine-tuning", 3, len(images))
    assert record.settings == asdict(DEFENSE)
    assert record.sample_gradients == 40 * 32


def test_zero_steps_change_nothing() -> None:
    classifier = small_net(3)
    tuned, _ = harden(replace(DEFENSE, schedule=replace(DEFENSE.schedule, steps=0)), classifier, digit_images(3)[0])
    assert same_weights(tuned, classifier)


def test_a_stopped_run_continues_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    images, classifier = digit_images(3)[0], small_net(3)
    whole, expected = harden(DEFENSE, classifier, images)

    with pytest.raises(PowerCutError):
        harden(DEFENSE, classifier, images, folder=tmp_path / "run", progress=cut_at(25))
    resumed, record = harden(DEFENSE, classifier, images, folder=tmp_path / "run")
    assert same_weights(resumed, whole)
    assert record.sample_gradients == expected.sample_gradients
