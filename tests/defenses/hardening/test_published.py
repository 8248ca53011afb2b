"""The hardening defenses of others: what they train against gets harder, and how MOTH chooses."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch.nn import functional

from phard_hub.defenses import DEFENSES
from phard_hub.defenses.hardening.moth import Moth, _Objective
from phard_hub.defenses.hardening.pgd import PgdTraining
from phard_hub.defenses.hardening.stamped import PairwiseStamped, StampedTraining
from phard_hub.defenses.hardening.uat import UniversalAdversarialTraining
from phard_hub.defenses.hardening.uat import _Objective as Uat
from phard_hub.defenses.inversion import Inversion, Stamps
from phard_hub.evaluation.threats import PGD, evaluate
from phard_hub.models.classifier import Classifier
from tests.defenses.planted import defenders, left, planted, short
from tests.small import batch, digit_images, harden, job, trained_digits

QUICK = Inversion(inner_steps=20, bound=0.9, patience=4)


def test_pgd_training_makes_the_model_robust() -> None:
    defense = short(PgdTraining(epsilon=0.1, step_size=0.03), steps=60)
    before, after = trained_digits(3), harden(defense, trained_digits(3), defenders()[0])[0]
    pgd = PGD(epsilon=0.15, steps=10, step_size=0.03, images=150)
    robust = [evaluate(each, digit_images(3)[1], pgd=pgd).robust_accuracy for each in (before, after)]
    assert robust[0] is not None
    assert robust[1] is not None
    assert robust[1].value > robust[0].value + 0.05


def test_the_pattern_of_uat_hurts_stays_in_its_ball_and_is_learnt() -> None:
    settings = UniversalAdversarialTraining(epsilon=0.15, step_size=0.03)
    images = defenders()[0]
    made = Uat(settings, trained_digits(3).eval(), images, job())
    for step in range(8):
        pixels, labels = made.shown(batch(images, 64, step))
    assert made.pattern.abs().max() == pytest.approx(0.15)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    hardened = harden(short(settings, steps=100, learning_rate=0.05), trained_digits(3), images)[0]
    losses = [
        float(functional.cross_entropy(each.eval()(pixels), labels).detach()) for each in (trained_digits(3), hardened)
    ]
    assert losses[1] < 0.7 * losses[0]


def quick(name: str) -> StampedTraining:
    made = DEFENSES[name]()
    assert isinstance(made, StampedTraining)
    short_of: dict[str, Any] = {each: QUICK for each in ("universal", "first", "following") if hasattr(made, each)}
    return replace(short(made, 24, learning_rate=0.005), **short_of)


def universal_size(classifier: Classifier) -> float:
    """Of the smallest mask from everywhere to the planted class."""
    images, random = defenders()[0], torch.Generator().manual_seed(0)
    pixels = images.batch((images.labels != 1).nonzero().flatten()[:60])[0]
    start = Stamps.drawn(1, (1, 8, 8), random, torch.device("cpu"))
    search = Inversion(inner_steps=120, bound=0.9, patience=5)
    return float(
        search.invert(classifier, pixels, torch.zeros(len(pixels)).long(), torch.tensor([1]), start, random).size
    )


@pytest.mark.parametrize("name", ["universal", "pairwise", "moth"])
def test_masks_have_to_be_larger_and_the_accuracy_stays(name: str) -> None:
    made, record = harden(quick(name), planted(), defenders()[0])
    assert universal_size(made) > 1.2 * universal_size(planted())
    assert left(made).accuracy > left(planted()).accuracy - 0.04
    assert record.sample_gradients > 24 * 32


def test_statistics_of_batch_norm_stay() -> None:
    made, _ = harden(quick("pairwise"), planted(), defenders()[0])
    for name, value in planted().named_buffers():
        assert torch.equal(value, made.get_buffer(name))


def moth(classes: int = 4, **settings: float) -> _Objective:
    made = Moth(universal=QUICK, first=QUICK, following=QUICK, **settings)  # type: ignore[arg-type]
    return _Objective(made, trained_digits(classes).eval(), digit_images(classes)[0], job())


def test_moth_chooses_what_flips_easily_and_later_what_grows_fast() -> None:
    made, random = moth(chance=0.0), torch.Generator().manual_seed(0)
    made.ease[2, 3] = 1.0
    made.growth[0, 1] = 1.0
    assert made._choose(0, random).tolist() == [2, 3]
    assert made._choose(2000, random).tolist() == [0, 1]


def test_and_in_some_cases_what_is_drawn() -> None:
    made, random = moth(chance=1.0), torch.Generator().manual_seed(0)
    made.ease[2, 3] = 1.0
    drawn = {tuple(made._choose(0, random).tolist()) for _ in range(100)}
    assert drawn == set(combinations(range(4), 2))


def test_the_warm_up_fills_all_pairs_and_a_pair_stays_for_three_batches() -> None:
    made, images = moth(classes=3, largest=1.0), digit_images(3)[0]
    seen = []
    for step in range(9):
        whole = batch(images, 60, step)
        made.stamped(whole, torch.Generator().manual_seed(step))
        if step == 2:
            assert (made.known[~torch.eye(3).bool()] > 0).all()
        if step > 2:
            seen.append(tuple(made.pair.tolist()))
    assert len(set(seen[:3])) == len(set(seen[3:])) == 1


def test_only_images_of_the_pair_are_stamped_and_large_masks_are_not() -> None:
    images = digit_images(3)[0]
    for largest, some in ((1.0, True), (0.0, False)):
        made = moth(classes=3, largest=largest, pair_share=0.5)
        assert isinstance(made, PairwiseStamped)
        made.pair = torch.tensor([0, 2])
        whole = batch(images, 60)
        changed = (made.with_pair(whole, 0, torch.Generator().manual_seed(0)) != whole.pixels).flatten(1).any(1)
        assert bool(changed.any()) == some
        assert not changed[whole.labels == 1].any()
