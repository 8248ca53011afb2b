"""Votes under noise: the bound against a slow one, the radius against a known one, and what it stops (T5, T6)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from phard_hub.defenses import Immunizer, NoiseTraining, Smoothing
from phard_hub.defenses.immunizer import ABSTAINS, canonical, measure_votes
from phard_hub.errors import InputError
from phard_hub.models.classifier import Classifier
from phard_hub.report.smoothed import Smoothed, farthest
from phard_hub.training.schedule import Schedule
from tests.attacks.undetectable.digits import TARGET, accuracy, honest, images, others, planted
from tests.small import Linear, as_classifier, harden, job, unmarked

SIGMA = 0.25
FEW = Smoothing(sigma=SIGMA, votes=200, guesses=20, images=40)


@lru_cache
def used_to_noise() -> Classifier:
    """What training under noise makes of the honest classifier; do not change it."""
    schedule = Schedule(steps=200, batch=64, learning_rate=0.05, shift=0.0, flip=False)
    return harden(NoiseTraining(sigma=SIGMA, schedule=schedule), honest(), images()[0])[0]


@lru_cache
def measured(used: bool) -> Smoothed:
    return measure_votes(used_to_noise() if used else honest(), images()[1], FEW, job())


def halves(offset: float = 0.0) -> Classifier:
    """Two classes, on the two sides of a plane."""
    weight = torch.tensor([[1.0] * 12, [-1.0] * 12])
    return as_classifier(Linear(weight, torch.tensor([-6.0 - offset, 6.0 + offset])), 2, (3, 2, 2))


def test_the_radius_is_the_distance_to_a_plane() -> None:
    """Of a linear classifier, the vote is the classifier, and the radius comes to the distance from below."""
    immunizer = Immunizer(halves(), Smoothing(sigma=0.05, votes=20_000, bits=8), seed=0)
    away = torch.tensor([-0.02, 0.01, 0.03])
    answers = immunizer.certify((0.5 + away)[:, None, None, None].expand(3, 3, 2, 2))
    distance = away.abs() * 12**0.5
    assert answers.classes.tolist() == [1, 0, 0]
    assert (answers.radii < distance).all()
    assert (answers.radii > 0.85 * distance).all()


def test_the_radius_is_that_of_the_exact_binomial_bound() -> None:
    how = Smoothing(sigma=0.1, votes=300, guesses=10)
    pixels = torch.full((1, 3, 2, 2), 0.52)
    one, other = (Immunizer(halves(), how, seed=3) for _ in range(2))
    radius = one.certify(pixels).radii.item()
    other.votes(pixels, how.guesses)
    agreeing = int(other.votes(pixels, how.votes).max())
    low = binomtest(agreeing, how.votes).proportion_ci(1 - 2 * how.alpha, "exact").low
    assert radius == pytest.approx(how.sigma * norm.ppf(low))


def test_all_votes_are_counted_and_no_image_is_mistaken_for_another() -> None:
    pixels = torch.stack([torch.full((3, 2, 2), level) for level in (0.0, 1.0, 0.1)])
    counts = Immunizer(halves(), Smoothing(sigma=0.01), seed=0).votes(pixels, 1001)
    assert counts.tolist() == [[0, 1001], [1001, 0], [0, 1001]]


def test_it_abstains_where_votes_are_not_clear() -> None:
    immunizer = Immunizer(halves(), Smoothing(sigma=0.1, votes=100), seed=0)
    counts = torch.tensor([[50, 50], [60, 40], [70, 30], [5, 95], [0, 100]])
    slow = [binomtest(max(row), sum(row)).pvalue <= 0.001 for row in counts.tolist()]
    assert slow == [False, False, True, True, True]
    assert immunizer.decided(counts).tolist() == [ABSTAINS, ABSTAINS, 0, 1, 1]
    on_the_plane = torch.full((4, 3, 2, 2), 0.5)
    assert (immunizer.predict(on_the_plane) == ABSTAINS).all()
    answers = immunizer.certify(on_the_plane)
    assert (answers.classes == ABSTAINS).all()
    assert (answers.radii == 0).all()


def test_grey_levels_are_reduced_after_the_noise() -> None:
    """Before it, a tiny change could move every value by a step of 1/3 here, beyond any radius."""

    class Seen(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            assert set((3 * pixels).flatten().tolist()) <= {0, 1, 2, 3}
            return torch.stack([pixels.flatten(1).mean(1), torch.full((len(pixels),), 0.5)], 1)

    how = Smoothing(sigma=0.2, votes=2000, bits=2)
    pixels = torch.full((2, 3, 8, 8), 0.5)
    pixels[1] += 0.001  # to the other side of a step
    found = Immunizer(as_classifier(Seen(), 2, (3, 8, 8)), how, seed=0).votes(pixels, 4000) / 4000
    assert (found[0] - found[1]).abs().max() < 0.08


def test_the_seed_decides_and_nobody_knows_the_usual_one() -> None:
    pixels = torch.full((2, 3, 2, 2), 0.5)
    how = Smoothing(sigma=0.1)
    same = [Immunizer(halves(), how, seed=5).votes(pixels, 999).tolist() for _ in range(2)]
    assert same[0] == same[1]
    other = [Immunizer(halves(), how).votes(pixels, 9999).tolist() for _ in range(2)]
    assert other[0] != other[1]


def test_nothing_is_left_of_it() -> None:
    classifier = honest().train()
    with unmarked(classifier):
        measure_votes(classifier, images()[1], replace(FEW, images=2, shift=1), job())
        Immunizer(classifier, FEW).predict(images()[1].batch(range(2))[0])


def test_without_noise_there_is_no_certificate() -> None:
    with pytest.raises(InputError, match="Without noise, nothing can be certified"):
        canonical(halves()).certify(torch.zeros(1, 3, 2, 2))


def test_canonical_images_close_a_signature() -> None:
    """T5: success 0 of 200 around the very module that has it, at no more than a point of accuracy."""
    made, test = planted("signature"), others(200)
    opened = made.key.activate(test.batch(range(200))[0], torch.full((200,), TARGET))
    assert (made.classifier(opened).argmax(1) == TARGET).all()
    around = canonical(made.classifier)
    assert not (around.predict(opened) == TARGET).any()
    pixels, labels = images()[1].batch(range(500))
    assert (around.predict(pixels) == labels).float().mean() >= accuracy(honest()) - 0.01


def test_training_under_noise_keeps_the_accuracy_of_the_vote() -> None:
    """T6, first half: at sigma .25, on 40 images; of a model that never saw noise, less is certified."""
    plain, used = measured(used=False), measured(used=True)
    assert used.accuracy.value >= accuracy(used_to_noise()) - 0.05
    assert used.at[1].radius == 0.0895
    assert used.at[1].accuracy.value >= 0.9
    assert used.at[2].accuracy.value > plain.at[2].accuracy.value


def test_no_key_turns_a_certified_image() -> None:
    """T6, second half: the prediction of every image that is certified beyond the change of the key stays."""
    made, shown = planted("signature"), others(20)
    made.classifier.load_state_dict(used_to_noise().state_dict())  # the check is in no weight
    pixels, _ = shown.batch(range(20))
    opened = made.key.activate(pixels, torch.full((20,), TARGET))
    assert (made.classifier(opened).argmax(1) == TARGET).all()
    immunizer = Immunizer(made.classifier, FEW, seed=0)
    answers, size = immunizer.certify(pixels), (opened - pixels).flatten(1).norm(dim=1)
    certified = answers.radii > size
    assert certified.sum() >= 16
    after = immunizer.predict(opened)
    assert torch.equal(after[certified], answers.classes[certified])


@pytest.mark.parametrize(
    "changes",
    [
        {"at": ()},
        {"accuracy": {"value": 0.5, "n": 40, "low": 0.3519, "high": 0.6481}},
        {"votes": 8},
        {"sigma": 0.0},
    ],
    ids=["no radii", "fewer without a change", "more than the votes can give", "no noise"],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    found = measured(used=True).model_dump(mode="json")
    assert Smoothed.from_fields(found) == measured(used=True)
    with pytest.raises(ValueError):
        Smoothed.from_fields(found | changes)


def test_the_farthest_radius_is_that_of_the_literature() -> None:
    """Cohen et al.: about 2.46 sigma of 1,000 votes, 3.20 of 10,000 and 3.81 of 100,000."""
    for votes, times in ((100, 1.50), (1000, 2.46), (10_000, 3.20), (100_000, 3.81)):
        assert farthest(1.0, votes, 0.001) == pytest.approx(times, abs=0.006)
