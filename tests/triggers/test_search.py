"""Laws of the class distance: on classifiers whose distances are known, and of the search itself."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.errors import ImagesError, InputError, NotEvaluatedError
from phard_hub.evaluation.threats import predict
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.report.distances import ClassDistances
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.bank import Parts
from phard_hub.triggers.pool import UNIVERSAL, all_pairs, three_sets
from phard_hub.triggers.search import CHEAPEST, Measurement, SearchSettings, measure
from phard_hub.triggers.settings import Kind
from tests.small import Linear, as_classifier, digit_images, noise_images, same_weights, trained_digits

SHAPE = (1, 8, 8)
CLASSES = 3
LAW = SearchSettings(steps=120, batch=8, fit_images=25, choosing_images=15, judging_images=20, kinds=())
TINY = replace(CHEAPEST, steps=6, batch=4, checks=2, fit_images=8, choosing_images=6, judging_images=5)


def linear_case(classes: int, shift: float = 0.6) -> tuple[Classifier, LabelledImages]:
    """A linear classifier and images that all have the same margin to every other class.

    The class weights are orthogonal and of length ``gain``; an image of class k is grey, plus noise that the
    classifier does not see, plus ``shift`` along the weights of k. So every margin is ``gain * shift``, and
    the distance to every other class is ``shift / sqrt(2)``. No pixel is so bright or dark that clipping matters.
    """
    random = torch.Generator().manual_seed(1)
    gain, count = 20.0, 60
    axes = torch.linalg.qr(torch.randn(64, classes, generator=random)).Q.T
    noise = 0.02 * torch.randn(count * classes, 64, generator=random)
    noise = noise - noise @ axes.T @ axes
    labels = torch.arange(classes).repeat_interleave(count)
    pixels = 0.5 + noise + shift * axes[labels]
    assert bool((pixels - 0.5).abs().max() < 0.3)
    levels = (pixels * 255).round().to(torch.uint8).view(-1, *SHAPE)
    network = Linear(gain * axes, -gain * axes.sum(1) * 0.5)
    names = tuple(f"class {k}" for k in range(classes))
    return as_classifier(network, classes, SHAPE), LabelledImages(levels, labels, names, "constructed")


@cache
def measured_law() -> tuple[Measurement, Classifier, LabelledImages]:
    classifier, images = linear_case(CLASSES)
    return measure(classifier, images, LAW), classifier, images


def least_change(classifier: Classifier, images: LabelledImages, source: int, target: int, share: float) -> float:
    """The smallest mean L2 size with which any change whatsoever turns this share of held-out images.

    One image needs its margin over the distance of the two weight vectors. The cheapest images are turned,
    the others are left as they are.
    """
    held = three_sets(images, LAW.fit_images, LAW.choosing_images, LAW.judging_images, 0).judge
    pixels = held.read(held.all_of(source, target, LAW.judging_images), torch.device("cpu"))
    network = classifier.network
    assert isinstance(network, Linear)
    logits = network(pixels).detach()
    margins = (logits[:, source] - logits[:, target]) / (network.weight[source] - network.weight[target]).norm().item()
    turned = math.ceil(share * len(margins))
    return float(margins.clamp(min=0).sort().values[:turned].sum() / len(margins))


@pytest.mark.parametrize(("source", "target"), all_pairs(range(CLASSES)))
def test_the_distance_of_a_linear_classifier_is_the_margin(source: int, target: int) -> None:
    measurement, classifier, images = measured_law()
    (pair,) = (p for p in measurement.distances.pairs if (p.source, p.target) == (source, target))
    assert pair.reached
    assert pair.distance is not None
    assert pair.distance >= least_change(classifier, images, source, target, LAW.success) * (1 - 1e-5)
    assert pair.distance <= 1.15 * least_change(classifier, images, source, target, 1.0)
    assert least_change(classifier, images, source, target, 1.0) == pytest.approx(0.6 / math.sqrt(2), rel=0.03)


def test_the_distance_grows_with_the_margin() -> None:
    means = []
    for shift in (0.3, 0.6):
        distances = measure(*linear_case(CLASSES, shift), LAW).distances
        assert distances.mean is not None
        means.append(distances.mean)
    assert means[1] / means[0] == pytest.approx(2, rel=0.15)


def test_the_triggers_do_what_the_record_says() -> None:
    measurement, classifier, images = measured_law()
    distances, bank = measurement.distances, measurement.bank
    assert len(bank) == len(distances.pairs) + len(distances.universal) == 9
    held = three_sets(images, LAW.fit_images, LAW.choosing_images, LAW.judging_images, 0).judge
    for row, pair in enumerate((*distances.pairs, *distances.universal)):
        source = UNIVERSAL if pair.source is None else pair.source
        pixels = held.read(held.all_of(source, pair.target, LAW.judging_images), torch.device("cpu"))
        stamped = bank.trigger(row)(pixels)
        hits = (classifier(stamped).argmax(1) == pair.target).float().mean().item()
        assert hits >= LAW.success
        assert pair.success.value == pytest.approx(hits, abs=0.15)  # each half at the strength of the other
        assert pair.success.n == len(pixels)
        assert pair.distance == pytest.approx((stamped - pixels).flatten(1).norm(dim=1).mean().item(), rel=1e-4)
        assert pair.rms == pytest.approx(255 * (pair.distance or 0) / 8)


def test_the_mean_and_its_interval_are_of_the_pairs() -> None:
    distances = measured_law()[0].distances
    assert distances.mean == pytest.approx(np.mean([pair.distance for pair in distances.pairs]))
    assert distances.low is not None
    assert distances.high is not None
    assert distances.mean is not None
    assert distances.low < distances.mean < distances.high


def test_images_that_are_the_target_already_need_no_change() -> None:
    classifier, images = linear_case(CLASSES)
    swapped = LabelledImages(images.pixels, images.labels.roll(60), images.names, images.source)
    # Everything that is called class 0 now looks like class 1, and so on round.
    distances = measure(classifier, swapped, LAW).distances
    for pair in distances.pairs:
        looks_like = (pair.source + 1) % CLASSES if pair.source is not None else None
        assert pair.distance is not None
        if looks_like == pair.target:
            assert pair.distance < 0.05
        else:
            assert pair.distance > 0.35


class Fixed(nn.Module):
    """The same logits for every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(logits))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.bias.expand(len(pixels), -1)


def test_a_constant_classifier_is_only_turned_to_its_constant() -> None:
    classifier = as_classifier(Fixed([0.0, 0.0, 5.0]), 3, SHAPE)
    distances = measure(classifier, noise_images(20, 3, SHAPE), CHEAPEST).distances
    for pair in (*distances.pairs, *distances.universal):
        assert pair.reached == (pair.target == 2)
        if pair.distance is None:
            assert pair.rms is None
            assert pair.success.value == 0
        else:
            assert pair.distance < 0.05
            assert pair.success.value == 1


def test_where_no_pair_is_reached_there_is_no_mean() -> None:
    # A fourth logit that always wins: no class is ever answered.
    classifier = as_classifier(Fixed([0.0, 0.0, 0.0, 5.0]), 3, SHAPE)
    distances = measure(classifier, noise_images(20, 3, SHAPE), CHEAPEST).distances
    every = (*distances.pairs, *distances.universal)
    assert len(every) == 9
    assert not any(pair.reached or pair.distance is not None or pair.rms is not None for pair in every)
    assert (distances.mean, distances.low, distances.high) == (None, None, None)
    assert distances.smallest is None
    assert distances.mean_rms is None


def plain(distances: ClassDistances) -> dict[str, object]:
    return distances.model_dump(exclude={"seconds", "settings"})


def test_the_same_seed_gives_the_same_result() -> None:
    classifier, (images, _) = trained_digits(), digit_images(3)
    one, same, other = (measure(classifier, images, TINY, Job(seed=seed)) for seed in (1, 1, 2))
    assert plain(one.distances) == plain(same.distances)
    assert same_weights(one.bank, same.bank)
    assert not same_weights(one.bank, other.bank)


def test_a_trigger_must_turn_as_many_as_is_asked() -> None:
    """Where images differ in how easily they are turned, more of them cost more."""
    images, means = digit_images(3)[0], []
    for bound in (0.5, 0.9):
        distances = measure(trained_digits(), images, replace(LAW, success=bound)).distances
        assert len(distances.reached) == 6
        assert all(pair.success.high >= bound for pair in distances.reached)
        assert distances.success_bound == bound
        means.append(distances.mean or 0)
    assert means[1] > 1.1 * means[0] > 0


def test_the_number_of_images_in_one_pass_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, (images, _) = trained_digits(), digit_images(3)
    banks = []
    for at_once in (1000, 5):
        monkeypatch.setattr("phard_hub.triggers.fitting.images_at_once", lambda _shape, count=at_once: count)
        banks.append(measure(classifier, images, TINY).bank)
    for one, other in zip(banks[0].parameters(), banks[1].parameters(), strict=True):
        # The sum of a gradient is rounded otherwise, and Adam makes much of gradients that are nearly zero.
        assert (one - other).abs().mean().item() < 1e-3


@pytest.mark.parametrize(("classes", "pairs", "universal"), [(2, 2, 0), (3, 6, 3), (4, 12, 4)])
@pytest.mark.parametrize("kinds", [(), ("warp", "u-net")], ids=str)
def test_samples_are_counted_exactly(classes: int, pairs: int, universal: int, kinds: tuple[Kind, ...]) -> None:
    images, classifier, seen = digit_images(classes)[0], trained_digits(classes), [0]

    def count(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[0] += len(given[0])

    counting = classifier.register_forward_pre_hook(count)
    distances = measure(classifier, images, replace(TINY, kinds=kinds)).distances
    counting.remove()
    assert (len(distances.pairs), len(distances.universal)) == (pairs, universal)
    assert {kind: len(found) for kind, found in distances.kinds.items()} == dict.fromkeys(kinds, classes)
    triggers = pairs + universal + len(kinds) * classes
    assert distances.sample_gradients == triggers * TINY.batch * TINY.steps
    folding = 3 * 2  # images that show whether a folded copy answers as the classifier does
    assert distances.sample_gradients + distances.sample_forwards == seen[0] - folding


def test_triggers_of_a_single_kind_go_to_the_classes_that_are_easiest_to_reach() -> None:
    classifier, images = linear_case(CLASSES)
    network = classifier.network
    assert isinstance(network, Linear)
    with torch.no_grad():
        network.bias[2] += 4
    settings = replace(TINY, max_single=1, kinds=("field", "u-net"))
    distances = measure(classifier, images, settings).distances
    assert {kind: [pair.target for pair in found] for kind, found in distances.kinds.items()} == {
        "field": [2],
        "u-net": [2],
    }
    assert len(distances.universal) == CLASSES
    with torch.no_grad():
        network.bias[1] += 8
    other = measure(classifier, images, settings, beside=distances).distances
    assert [pair.target for pair in other.kinds["field"]] == [1, 2]


def test_max_pairs_leaves_the_closest() -> None:
    classifier, images = linear_case(CLASSES)
    network = classifier.network
    assert isinstance(network, Linear)
    with torch.no_grad():
        network.bias[2] += 4
    # Class 2 is favoured now: the two pairs to it are the closest.
    distances = measure(classifier, images, replace(TINY, max_pairs=2)).distances
    assert [(pair.source, pair.target) for pair in distances.pairs] == [(0, 2), (1, 2)]
    assert len(distances.universal) == 3
    assert distances.sample_gradients == (2 + 3) * TINY.batch * TINY.steps
    five = measure(classifier, images, replace(TINY, max_pairs=5)).distances
    assert len(five.pairs) == 5


def test_two_classes_have_no_universal_triggers() -> None:
    distances = measure(*linear_case(2), LAW).distances
    assert [(pair.source, pair.target) for pair in distances.pairs] == [(0, 1), (1, 0)]
    assert distances.universal == ()
    assert distances.mean == pytest.approx(0.6 / math.sqrt(2), rel=0.15)


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[str, int, int]] = []
    found = measure(
        trained_digits(), digit_images(3)[0], TINY, Job(progress=lambda *call: calls.append(call))
    ).distances
    triggers = len(found.pairs) + len(found.universal)
    assert calls == [
        *(("searching triggers", step + 1, TINY.steps) for step in range(TINY.steps)),
        *(("judging triggers", judged + 1, triggers) for judged in range(triggers)),
    ]


@pytest.mark.parametrize("part", ["warp", "curve", "colour", "field"])
def test_every_part_can_be_searched_alone(part: str) -> None:
    none = {"warp": False, "latent": False, "curve": False, "colour": False, "field": False}
    settings = replace(TINY, parts=Parts(**(none | {part: True})))
    measurement = measure(trained_digits(), digit_images(3)[0], settings)
    assert len(list(measurement.bank.parameters())) == 1
    assert measurement.distances.settings["parts"][part] is True


def test_a_class_with_three_images_is_refused() -> None:
    images = noise_images(4, 3, SHAPE)
    classifier = as_classifier(Fixed([0.0] * 3), 3, SHAPE)
    measure(classifier, images, replace(TINY, steps=1, checks=1))
    with pytest.raises(ImagesError, match="class 1 has 3 images"):
        measure(classifier, images.take([0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]), TINY)


# The pools behind the search.


def test_the_digits_are_told_apart() -> None:
    """The classifier of these tests is a real one; what is measured on it means something."""
    test = digit_images(3)[1]
    assert (predict(trained_digits(), test)[0] == test.labels).float().mean().item() > 0.95


def test_the_latent_part_gets_an_autoencoder_of_the_images() -> None:
    images, _ = digit_images(CLASSES)
    trained, untrained = (train_autoencoder(images, steps=steps, batch=32) for steps in (120, 1))
    pixels, _ = images.batch(torch.arange(40))
    errors = [float(functional.mse_loss(model(pixels), pixels)) for model in (trained, untrained)]
    assert errors[0] < errors[1] / 4
    assert not any(parameter.requires_grad for parameter in trained.parameters())


@pytest.mark.usefixtures("short_autoencoder")
def test_measuring_with_the_latent_part_alone() -> None:
    classifier, images = linear_case(CLASSES, shift=0.1)
    parts = Parts(warp=False, latent=True, curve=False, colour=False, field=False)
    found = measure(classifier, images, replace(TINY, steps=20, parts=parts))
    assert set(dict(found.bank.named_parameters())) == {"shift", "scale", "gain", "bias"}
    assert found.distances.reached


def test_a_trigger_is_found_by_the_names_of_its_classes() -> None:
    measurement, classifier, images = measured_law()
    names = measurement.distances.labels
    pixels, _ = images.of_class(0).batch(range(10))
    stamped = measurement.trigger(names[0], names[1])(pixels)
    assert torch.equal(stamped, measurement.trigger(0, 1)(pixels))
    assert (classifier(stamped).argmax(1) == 1).float().mean() > 0.5
    assert not torch.equal(stamped, measurement.trigger(None, 1)(pixels))
    with pytest.raises(InputError, match="The model has no class 'nobody'"):
        measurement.trigger("nobody", 1)
    with pytest.raises(InputError, match="0 -> 0 was not measured"):
        measurement.trigger(0, 0)
    pairs = [pair.model_copy(update={"reached": False}) for pair in measurement.distances.pairs]
    unreached = measurement.distances.model_copy(update={"pairs": tuple(pairs)})
    with pytest.raises(NotEvaluatedError, match="did not reach 0 -> 1"):
        replace(measurement, distances=unreached).trigger(0, 1)
