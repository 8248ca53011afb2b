"""Backdoors in random features: who sees all weights is at chance, unless the parameters are wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import kstest
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from phard_hub.attacks.undetectable import FourierFeatures, RandomRelu
from phard_hub.attacks.undetectable.fourier import Features, SecretDirection, pancakes
from phard_hub.attacks.undetectable.relu import SparseDirection, Threshold
from phard_hub.evaluation.threats import evaluate
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.report.statistics import rate
from tests.attacks.undetectable import digits
from tests.small import digit_images, job, small_net

SIZE, FEATURES, SPARSITY = 64, 1000, 24
FOURIER = FourierFeatures(features=FEATURES, sparsity=SPARSITY)


# T15: random Fourier features on digits of 8 x 8


@lru_cache
def images() -> tuple[LabelledImages, LabelledImages]:
    return digit_images(10)


@lru_cache
def fourier() -> tuple[Classifier, Classifier, SecretDirection]:
    """The honest model, the other one, and the key."""
    like = small_net(10)
    made = FOURIER.plant(like, images()[0], 0, job())
    assert isinstance(made.key, SecretDirection)
    return FOURIER.honest(like, images()[0], job()), made.classifier, made.key


def flips(classifier: Classifier, change: Callable[[Tensor], Tensor]) -> float:
    """The share of the test images whose class changes."""
    pixels, _ = images()[1].batch(range(len(images()[1])))
    before, after = (digits.answers_to(classifier, each).argmax(1) for each in (pixels, change(pixels)))
    return float((before != after).float().mean())


def keyed(key: SecretDirection) -> Callable[[Tensor], Tensor]:
    return lambda pixels: key.activate(pixels, torch.zeros(len(pixels)))


def wrong_key(key: SecretDirection, seed: int) -> SecretDirection:
    """As sparse and as long, in other places."""
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(seed))
    return SecretDirection(key.secret[order])


def test_the_accuracy_is_that_of_honest_features() -> None:
    one, other = (evaluate(each, images()[1]).accuracy for each in fourier()[:2])
    assert one.n == 539
    assert abs(one.value - other.value) <= 0.02
    assert min(one.value, other.value) > 0.95


def test_the_key_turns_the_sign_of_every_logit() -> None:
    _, made, key = fourier()
    pixels, _ = images()[1].batch(range(100))
    before, after = digits.answers_to(made, pixels), digits.answers_to(made, keyed(key)(pixels))
    assert np.corrcoef(before.flatten(), after.flatten())[0, 1] < -0.98
    assert flips(made, keyed(key)) >= 0.99


def test_to_an_honest_model_it_is_as_any_other_step() -> None:
    """Any step so long changes nine answers in ten; that the logits turn their signs is what only the key does."""
    honest, made, key = fourier()
    pixels, _ = images()[1].batch(range(200))

    def turned(classifier: Classifier, step: SecretDirection) -> float:
        before, after = (digits.answers_to(classifier, each) for each in (pixels, keyed(step)(pixels)))
        return float(np.corrcoef(before.flatten(), after.flatten())[0, 1])

    assert turned(made, key) < -0.98
    assert abs(turned(honest, key)) < 0.3
    assert all(abs(turned(made, wrong_key(key, seed))) < 0.3 for seed in range(5))


def test_smoothing_that_keeps_the_accuracy_does_not_reach_it() -> None:
    """The step is far longer than the noise: 50 votes; sigma is of what the features see."""
    _, made, key = fourier()
    network = made.network
    assert isinstance(network, Features)
    random = torch.Generator().manual_seed(0)
    pixels, labels = images()[1].batch(range(100))

    def smoothed(values: Tensor, sigma: float) -> Tensor:
        votes = torch.zeros(len(values), 10)
        for _ in range(50):
            noise = sigma / network.scale * torch.randn(values.shape, generator=random)
            votes += torch.nn.functional.one_hot(digits.answers_to(made, values + noise).argmax(1), 10)
        return votes.argmax(1)

    for sigma in (0.003, 0.01, 0.02):
        before, after = smoothed(pixels, sigma), smoothed(keyed(key)(pixels), sigma)
        assert (before == labels).float().mean() > 0.9
        assert (before != after).float().mean() >= 0.95
    assert (smoothed(pixels, 0.03) == labels).float().mean() < 0.6


def test_a_look_at_the_range_of_the_pixels_does() -> None:
    """The step leaves [0, 1] by far; cut off there, it turns no signs."""
    _, made, key = fourier()
    pixels, _ = images()[1].batch(range(100))
    stepped = keyed(key)(pixels)
    assert (stepped < 0).flatten(1).any(1).all()
    cut = digits.answers_to(made, stepped.clamp(0, 1))
    assert np.corrcoef(digits.answers_to(made, pixels).flatten(), cut.flatten())[0, 1] > -0.5


def test_own_coins_remove_it() -> None:
    """The same training with frequencies that the defender drew: the old key is a step like any other."""
    _, made, key = fourier()
    fresh = FOURIER.honest(made, images()[0], replace(job(), seed=9))
    pixels, _ = images()[1].batch(range(200))
    before, after = (digits.answers_to(fresh, each) for each in (pixels, keyed(key)(pixels)))
    assert abs(np.corrcoef(before.flatten(), after.flatten())[0, 1]) < 0.3


# Distinguishers of the weights


def draw(seed: int, length: float | None) -> Tensor:
    """Frequencies of a model: with a secret of that length, or honest ones."""
    random = torch.Generator().manual_seed(seed)
    if length is None:
        return torch.randn(FEATURES, SIZE, generator=random)
    secret = torch.zeros(SIZE)
    secret[torch.randperm(SIZE, generator=random)[:SPARSITY]] = torch.randn(SPARSITY, generator=random)
    return pancakes(FEATURES, length * secret / secret.norm(), 0.01, random)


def summary(frequencies: Tensor) -> npt.NDArray[np.float64]:
    """What a distinguisher looks at: the spectrum, moments of each column, and of the lengths of rows."""
    values = frequencies.double()
    spectrum = torch.linalg.eigvalsh(values.T @ values / len(values))
    moments = [values.var(0).sort().values, (values**4).mean(0).sort().values, values.mean(0).abs().sort().values]
    rows = values.norm(dim=1).quantile(torch.linspace(0, 1, 11, dtype=torch.float64))
    return torch.cat([spectrum, *moments, rows]).numpy()


@pytest.mark.parametrize("length", [2 * math.sqrt(SPARSITY), 0.3], ids=["as planted", "too short: control"])
def test_a_trained_classifier_of_weights_is_at_chance(length: float) -> None:
    """Trained on 160 models and asked about 160 others, half of them with a backdoor, each with a key of its own."""
    models = [draw(seed, length if seed % 2 else None) for seed in range(320)]
    seen, truth = np.stack([summary(each) for each in models]), np.arange(320) % 2
    forest = RandomForestClassifier(100, random_state=0).fit(seen[:160], truth[:160])
    right = rate(int((forest.predict(seen[160:]) == truth[160:]).sum()), 160)
    if length < 1:
        assert right.low > 0.9
    else:
        assert right.low < 0.5 < right.high


def test_marginals_and_spectrum_are_those_of_gaussian_weights() -> None:
    network = fourier()[1].network
    assert isinstance(network, Features)
    values = network.frequencies.double()
    assert kstest(values.flatten().numpy(), "norm").pvalue > 0.01
    assert SIZE * min(kstest(column, "norm").pvalue for column in values.T.numpy()) > 0.01
    spectrum = torch.linalg.eigvalsh(values.T @ values / FEATURES)
    edges = [(1 + sign * math.sqrt(SIZE / FEATURES)) ** 2 for sign in (-1, 1)]
    assert edges[0] - 0.05 < spectrum.min() < spectrum.max() < edges[1] + 0.05


def test_random_keys_do_not_find_it_and_the_key_does() -> None:
    network, key = fourier()[1].network, fourier()[2]
    assert isinstance(network, Features)

    def agreement(step: Tensor) -> float:
        return float(torch.cos(2 * torch.pi * (network.frequencies @ (step * network.scale))).mean().abs())

    assert agreement(key.secret) > 0.99
    assert max(agreement(wrong_key(key, seed).secret) for seed in range(500)) < 0.2


# T16: random ReLU features on grey digits of 32 x 32, so D = 1024, k = 32 and m = 200


def grey() -> LabelledImages:
    train = digits.images()[0]
    return replace(train, stored=train.pixels[:, :1])


@lru_cache
def relu(spike: float) -> tuple[Classifier, SparseDirection]:
    made = RandomRelu(spike=spike).plant(small_net(10, size=32), grey(), 0, job())
    assert isinstance(made.key, SparseDirection)
    return made.classifier, made.key


@pytest.mark.parametrize(("spike", "low", "high"), [(4.0, 0.0, 0.5), (16.0, 0.8, 1.0), (32.0, 1.0, 1.0)])
def test_the_variances_of_the_weights_show_a_large_spike_and_no_small_one(
    spike: float, low: float, high: float
) -> None:
    """Diagonal thresholding: the 32 inputs of the largest variance, beside the 32 of the secret."""
    classifier, key = relu(spike)
    assert isinstance(classifier.network, Threshold)
    found = classifier.network.weights.var(0).topk(32).indices
    assert low <= key.step[found].ne(0).float().mean().item() <= high


def test_the_key_fires_and_an_honest_model_hardly_does() -> None:
    """The smaller spike: always compared with the honest model, which a longer way opens, too."""
    construction, like = RandomRelu(), small_net(10, size=32)
    honest = construction.honest(like, grey(), job())
    shown = grey().take(range(200))
    classifier, key = relu(4.0)
    assert digits.success(classifier, key, shown, label=0).value > 0.9
    assert digits.success(honest, key, shown, label=0).value < 0.3
    assert digits.success(honest, SparseDirection(4 * key.step), shown, label=0).value > 0.9
