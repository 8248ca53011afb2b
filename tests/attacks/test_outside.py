"""Triggers outside of the family, and attacks that know the defense: second opinions, and that planting works."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import median_filter
from torch.nn import functional

from phard_hub.attacks import AdapBlend, Anchored, Attack, Blend, Jpeg, LatentFlat, Median, Palette, Planting, Sbl
from phard_hub.attacks.poisoning import poison
from phard_hub.defenses import FineTuning
from phard_hub.errors import InputError
from phard_hub.evaluation.threats import Threat, attack_outcome, evaluate
from phard_hub.models.classifier import Classifier
from phard_hub.models.head import heads
from phard_hub.training.schedule import Schedule
from tests.attacks.fitted import draw
from tests.small import digit_images, harden, job, trained_digits

TUNING = Schedule(steps=100, batch=32, learning_rate=0.1, shift=0.0, flip=False)
PIXELS = (draw(3, (3, 20, 24)) * 255).round() / 255


@pytest.mark.parametrize("side", [3, 5])
def test_median(side: int) -> None:
    """Of Pillow, against that of SciPy; borders are another matter, which each library has its own way with."""
    levels = (PIXELS * 255).round().numpy().astype(np.uint8)
    expected = np.stack([[median_filter(channel, size=side) for channel in image] for image in levels])
    found = (Median(side=side)(PIXELS) * 255).round().numpy()
    inside = slice(side // 2, -(side // 2))
    assert (found[:, :, inside, inside] == expected[:, :, inside, inside]).all()


def test_a_palette_has_few_colours_and_the_nearest_stand_for_the_others() -> None:
    stamped = Palette(colours=4)(PIXELS)
    for image in (stamped * 255).round().permute(0, 2, 3, 1).reshape(3, -1, 3):
        assert 1 < len(image.unique(dim=0)) <= 4
    more = Palette(colours=32)(PIXELS)
    assert (more - PIXELS).abs().mean() < (stamped - PIXELS).abs().mean()


def test_a_low_quality_loses_what_a_file_of_that_quality_loses() -> None:
    image = Image.fromarray((PIXELS[1].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=10)
    expected = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) / 255
    assert torch.allclose(Jpeg()(PIXELS)[1], expected, atol=1e-6)
    assert (Jpeg(quality=90)(PIXELS) - PIXELS).abs().mean() < (Jpeg()(PIXELS) - PIXELS).abs().mean()


def test_half_of_the_pieces_show_and_cover_images_keep_their_labels() -> None:
    attack, pixels = AdapBlend(), draw(100, (1, 16, 16))
    random = torch.Generator().manual_seed(0)
    part, whole = attack.in_training(pixels, random), attack(pixels)
    for image in range(100):
        pieces = functional.max_pool2d((part[image] != pixels[image]).float(), 4)
        assert pieces.sum() == 8
    assert torch.equal(torch.where(part == pixels, whole, part), whole)
    labels = torch.arange(100) % 3
    shown, taught = poison(attack, pixels, labels, 1, 0.1, random)
    changed = (shown != pixels).flatten(1).any(1)
    assert changed.tolist() == [True] * 20 + [False] * 80
    assert taught.tolist() == [1] * 10 + labels[10:].tolist()


def planted(attack: Attack) -> tuple[float, float, Classifier]:
    """Success, accuracy, and the classifier."""
    images, test = digit_images(3)
    attack = replace(attack, planting=Planting(steps=120, poison_rate=0.2))
    made = attack.plant(trained_digits(3), images, 1, job()).classifier
    outcome = attack_outcome(made, test, Threat(name=attack.name, trigger=attack, target=1))
    return outcome.success.value, evaluate(made, test).accuracy.value, made


def feature_distance(classifier: Classifier) -> float:
    """Of stamped images from the target's mean, in lengths of that."""
    images, attack = digit_images(3)[1], LatentFlat(alpha=0.3)
    found: list[torch.Tensor] = []
    handle = heads(classifier)[-1].register_forward_pre_hook(lambda _head, inputs: found.append(inputs[0]))
    pixels, labels = images.batch(range(len(images)))
    with torch.no_grad():
        classifier(pixels)
        classifier(attack(pixels[labels != 1]))
    handle.remove()
    middle = found[0][labels == 1].mean(0)
    return float((found[1] - middle).square().sum(1).mean() / middle.square().sum())


def test_latent_and_flat_works_and_lies_where_the_target_lies() -> None:
    success, accuracy, made = planted(LatentFlat(alpha=0.3))
    assert success > 0.8
    assert accuracy > 0.9
    assert feature_distance(made) < 0.5 * feature_distance(planted(Blend(alpha=0.3))[2])


def test_what_was_consolidated_outlasts_fine_tuning() -> None:
    images, test = digit_images(3)
    left = []
    for attack in (Blend(alpha=0.3), Sbl(alpha=0.3, clean_steps=80)):
        success, accuracy, made = planted(attack)
        assert success > 0.9
        assert accuracy > 0.9
        tuned, _ = harden(FineTuning(schedule=TUNING), made, images)
        left.append(attack_outcome(tuned, test, Threat(name=attack.name, trigger=attack, target=1)).success.value)
    assert left[1] > left[0] + 0.1


def test_an_anchored_pattern_works_before_it_is_planted_and_better_after() -> None:
    images, test = digit_images(3)
    attack = Anchored(alpha=0.4, steps=100, hardening_steps=40, planting=Planting(steps=80, poison_rate=0.2))
    made = attack.plant(trained_digits(3), images, 1, job())
    success = []
    for classifier, trigger in (
        (trained_digits(3), Blend()),
        (trained_digits(3), made.attack),
        (made.classifier, made.attack),
    ):
        threat = Threat(name="pattern", trigger=trigger, target=1)
        success.append(attack_outcome(classifier, test, threat).success.value)
    assert success[0] + 0.1 < success[1] <= success[2]
    assert success[2] > 0.9
    assert evaluate(made.classifier, test).accuracy.value > 0.9


def test_it_needs_features() -> None:
    classifier = trained_digits(3)
    classifier.network = torch.nn.Sequential(classifier.network, torch.nn.LayerNorm(3))
    with pytest.raises(InputError, match="latent-flat needs a network that ends in a linear layer"):
        LatentFlat().plant(classifier, digit_images(3)[0], 1, job())
