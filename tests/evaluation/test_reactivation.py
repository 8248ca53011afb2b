"""Re-activation: what it finds on models where the answer is known, against slow second readings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from phard_hub.attacks import Blend
from phard_hub.attacks.poisoning import Poisoned, poisonable, train_poisoned
from phard_hub.errors import ImagesError
from phard_hub.evaluation.reactivation import Perturbing, Relearning
from phard_hub.evaluation.threats import Threat
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.report.statistics import rate
from phard_hub.training.batches import Batches
from phard_hub.training.schedule import Schedule
from tests.small import Linear, as_classifier, digit_images, job, trained_digits, unmarked

ATTACK = Blend(alpha=0.15)
SCHEDULE = Schedule(batch=64, learning_rate=0.05, shift=0.0, flip=False)
RELEARNING = Relearning(steps=(5, 60), seeds=2, schedule=SCHEDULE)


def stamped_share(classifier: Classifier, images: LabelledImages, target: int, change: Tensor | None = None) -> Tensor:
    """Image by image: whether an image that is not of the target class is taken for it once it is stamped."""
    hits = []
    for pixels, label in zip(images.pixels, images.labels, strict=True):
        if int(label) != target:
            stamped = ATTACK(pixels[None].float() / 255)
            if change is not None:
                stamped = (stamped + change).clamp(0, 1)
            with torch.no_grad():
                hits.append(int(classifier.eval()(stamped).argmax()) == target)
    return torch.tensor(hits)


def test_relearning_is_training_on_a_few_poisoned_images() -> None:
    train, test = digit_images(3)
    classifier = trained_digits()
    with unmarked(classifier):
        short, long = RELEARNING.measure(classifier, train, test, ATTACK, 1, job())
    assert [(each.steps, each.poisoned, len(each.success)) for each in (short, long)] == [(5, 5, 2), (60, 5, 2)]
    assert short.mean < long.mean
    assert min(rate.value for rate in long.accuracy) > 0.9
    for seed, found in enumerate(long.success):
        few = poisonable(train, ATTACK, 1, 5, seed)
        assert len(few) == 5
        assert 1 not in few.labels.tolist()
        schedule = replace(SCHEDULE, steps=60)
        tuned = train_poisoned(classifier, train, ATTACK, 1, Job(seed=seed), few=few, schedule=schedule)
        hits = stamped_share(tuned, test, 1)
        assert found == rate(int(hits.sum()), len(hits))
    assert long.mean == pytest.approx(np.mean([rate.value for rate in long.success]))
    assert str(long).endswith("(60 steps)")


def test_only_the_few_images_carry_the_trigger() -> None:
    train, _ = digit_images(3)
    few = poisonable(train, ATTACK, 1, 2, 0)
    stamped = ATTACK(few.batch([0, 1])[0])
    objective = Poisoned(ATTACK, 1, None, few)
    batch = Batches(train, job(), size=16, shift=0.0, flip=False)[0]
    pixels, labels = objective.shown(batch)
    assert any(torch.equal(pixels[0], each) for each in stamped)
    assert labels[0] == 1
    assert torch.equal(pixels[1:], batch.pixels[1:])
    with pytest.raises(ImagesError, match="no image that blend would put its trigger on"):
        poisonable(train.of_class(1), ATTACK, 1, 5, 0)


def linear_case() -> tuple[Classifier, LabelledImages, Tensor]:
    """Two classes, told apart by a direction in pixel space; pixels far from black and white."""
    weight = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    classifier = as_classifier(Linear(weight, torch.zeros(2)), 2, (1, 8, 8))
    pixels = torch.randint(90, 160, (40, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images = LabelledImages(pixels, torch.arange(40) % 2, ("a", "b"), "noise")
    return classifier, images, (weight[1] - weight[0]).view(1, 8, 8)


def test_the_best_change_of_a_linear_classifier_is_known() -> None:
    """It is epsilon in the sign of the difference of the weights, for every image."""
    classifier, images, direction = linear_case()
    perturbing = Perturbing(epsilon=0.03, steps=20, batch=16)
    with unmarked(classifier):
        change = perturbing.search(classifier, images, Threat(name="nothing", trigger=lambda pixels: pixels, target=1))
    assert torch.allclose(change, 0.03 * direction.sign(), atol=1e-6)


def test_the_change_is_judged_together_with_the_trigger() -> None:
    train, test = digit_images(3)
    classifier = trained_digits()
    threat = Threat(name="blend", trigger=ATTACK, target=1)
    weak, strong = Perturbing(epsilon=0.01, steps=20), Perturbing(epsilon=0.25, steps=20)
    with unmarked(classifier):
        found = [each.measure(classifier, train, test, threat) for each in (weak, strong)]
    alone = stamped_share(classifier, test, 1)
    change = strong.search(classifier, train, threat)
    together = stamped_share(classifier, test, 1, change)
    assert change.abs().max() <= 0.25 + 1e-6
    assert found[1].success == rate(int(together.sum()), len(together))
    assert found[1].success.value > 0.8 > found[0].success.value >= alone.double().mean()
    assert [each.epsilon for each in found] == [0.01, 0.25]


def test_the_change_is_found_on_images_of_other_classes() -> None:
    classifier, images, _ = linear_case()
    threat = Threat(name="nothing", trigger=lambda pixels: pixels, target=0)
    with pytest.raises(ImagesError, match="All images of noise are of the target class"):
        Perturbing().search(classifier, images.of_class(0), threat)
