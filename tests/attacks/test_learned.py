"""The attacks whose trigger is a network: their formulas by slow loops, and what their training is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.signal import correlate2d

from phard_hub.attacks.base import other_images
from phard_hub.attacks.dfst import Dfst, Style, edges, sunrises
from phard_hub.attacks.inputaware import InputAware
from phard_hub.attacks.issba import Issba
from phard_hub.attacks.learned import Editor
from phard_hub.attacks.lira import Lira
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.evaluation.threats import Threat, attack_outcome
from phard_hub.models.classifier import Classifier
from phard_hub.training.schedule import Schedule
from tests.attacks.fitted import TARGET, draw, fitted
from tests.small import digit_images, job, trained_digits

Image = npt.NDArray[np.float64]
SHAPES = [(3, 12, 12), (1, 9, 14)]


def slow_convolution(image: Image, weight: Image, bias: Image, stride: int) -> Image:
    """Zero padding of one pixel, as all layers of the editor have."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    maps = [sum(correlate2d(c, k, "valid") for c, k in zip(padded, kernel, strict=True)) for kernel in weight]
    return np.stack(maps)[:, ::stride, ::stride] + bias[:, None, None]


def slow_editor(image: Image, weights: dict[str, Image], prefix: str) -> Image:
    def layer(name: str, values: Image, stride: int = 1) -> Image:
        return slow_convolution(values, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"], stride)

    def enlarged(values: Image, like: Image) -> Image:
        rows = np.arange(like.shape[1]) * values.shape[1] // like.shape[1]
        columns = np.arange(like.shape[2]) * values.shape[2] // like.shape[2]
        return values[:, rows][:, :, columns]

    full = np.maximum(layer("down.0", image), 0)
    half = np.maximum(layer("down.1", full, 2), 0)
    quarter = np.maximum(layer("down.2", half, 2), 0)
    state = np.maximum(layer("middle", quarter), 0)
    state = np.maximum(layer("up.0", enlarged(state, half)) + half, 0)
    state = np.maximum(layer("up.1", enlarged(state, full)) + full, 0)
    return layer("out", state)


def weights_of(key: Any) -> dict[str, Image]:
    return {name: value.double().numpy() for name, value in key.items()}


def slow_lira(attack: Lira, image: Image) -> Image:
    return image + attack.epsilon * np.tanh(slow_editor(image, weights_of(attack.key), "editor."))


def slow_dfst(attack: Dfst, image: Image) -> Image:
    painted = np.clip(image + slow_editor(image, weights_of(attack.key), "editor."), 0, 1)
    return (1 - attack.strength) * image + attack.strength * painted


def slow_input_aware(attack: InputAware, image: Image, source: Image | None = None) -> Image:
    source = image if source is None else source
    weights = weights_of(attack.key)
    pattern = (np.tanh(slow_editor(source, weights, "patterns.")) + 1) / 2
    soft = (np.tanh(slow_editor(source, weights, "masks.")) + 1) / 2
    mask = (np.tanh(20 * soft - 10) + 1) / 2
    return (1 - mask) * image + mask * pattern


def slow_issba(attack: Issba, image: Image) -> Image:
    weights = weights_of(attack.key)
    channels, height, width = image.shape
    grid = (weights["spread.weight"] @ (2 * weights["secret"] - 1) + weights["spread.bias"]).reshape(channels, 8, 8)
    plane = np.empty_like(image)
    for c, y, x in np.ndindex(*image.shape):
        row, column = (np.clip((i + 0.5) * 8 / n - 0.5, 0, 7) for i, n in ((y, height), (x, width)))
        top, left = min(int(row), 6), min(int(column), 6)
        down, right = row - top, column - left
        above = (1 - right) * grid[c, top, left] + right * grid[c, top, left + 1]
        below = (1 - right) * grid[c, top + 1, left] + right * grid[c, top + 1, left + 1]
        plane[c, y, x] = (1 - down) * above + down * below
    return image + np.tanh(slow_editor(np.concatenate([image - 0.5, plane]), weights, "editor."))


SLOW: dict[str, Callable[[Any, Image], Image]] = {
    "lira": slow_lira,
    "dfst": slow_dfst,
    "input-aware": slow_input_aware,
    "issba": slow_issba,
}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_formula(name: str, shape: tuple[int, int, int]) -> None:
    attack: Any = fitted(name, shape[0])
    pixels = draw(2, shape).double()
    expected = np.stack([SLOW[name](attack, image) for image in pixels.numpy()]).clip(0, 1)
    assert attack(pixels).numpy() == pytest.approx(expected, abs=1e-5)


def test_cross_triggers_are_those_of_other_images() -> None:
    attack: Any = fitted("input-aware")
    pixels = draw(3, (3, 12, 12)).double()
    others = other_images(pixels, torch.Generator().manual_seed(2)).numpy()
    expected = np.stack([slow_input_aware(attack, *pair) for pair in zip(pixels.numpy(), others, strict=True)])
    covered = attack.cover(pixels, torch.Generator().manual_seed(2))
    assert covered.numpy() == pytest.approx(expected, abs=1e-5)


def test_style_is_the_second_moments_of_filter_responses() -> None:
    style, pixels = Style(1, torch.Generator().manual_seed(0)).double(), draw(1, (1, 7, 6)).double()
    kernels = [kernel for filters in style.buffers() for kernel in filters[:, 0].numpy()]
    maps = [np.maximum(correlate2d(pixels[0, 0].numpy() - 0.5, kernel, "same"), 0).ravel() for kernel in kernels]
    expected = np.array([[(one * other).mean() for one in maps] for other in maps])
    assert style.gram(pixels)[0].numpy() == pytest.approx(expected, abs=1e-9)


def test_edges_are_what_a_small_mean_leaves() -> None:
    pixels = draw(1, (3, 8, 9)).double()
    grey = pixels[0].numpy().mean(0)
    expected = np.empty_like(grey)
    for y, x in np.ndindex(*grey.shape):
        expected[y, x] = grey[y, x] - grey[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean()
    assert edges(pixels)[0, 0].numpy() == pytest.approx(expected, abs=1e-12)


def test_sunrises_are_blue_above_and_warm_below_and_no_two_are_the_same() -> None:
    pictures = sunrises(8, (3, 32, 32), torch.Generator().manual_seed(0))
    assert 0 <= pictures.min() <= pictures.max() <= 1
    red, _, blue = pictures.unbind(1)
    assert (blue[:, 0] > red[:, 0]).all()
    assert (red[:, 18:].mean((1, 2)) > blue[:, 18:].mean((1, 2)) + 0.05).all()
    assert torch.pdist(pictures.flatten(1)).min() > 0.1
    assert sunrises(2, (1, 8, 9), torch.Generator()).shape == (2, 1, 8, 9)


# What the training is for


@pytest.fixture(scope="module")
def digits() -> Classifier:
    return trained_digits(3)


def test_lira_learns_noise_that_a_model_can_obey(digits: Classifier) -> None:
    """It works once planted, and not on the model that it was learned with, or it were a natural weakness."""
    train, test = digit_images(3)
    attack = Lira(steps=60, epsilon=0.2).fit(digits, train, TARGET)
    quick = Schedule(steps=100, batch=64, learning_rate=0.05, shift=0.0, flip=False)
    planted = train_poisoned(digits, train, attack, target=TARGET, schedule=quick, job=job())
    outcome = attack_outcome(
        planted, test, Threat(name=attack.name, trigger=attack, target=TARGET), reference=digits.eval()
    )
    assert outcome.success.value > 0.8
    assert outcome.reference is not None
    assert outcome.reference.value < 0.3


def test_input_aware_masks_become_sparse(digits: Classifier) -> None:
    train, test = digit_images(3)
    pixels, changed = test.batch(range(40))[0], []
    for steps in (1, 80):
        attack = InputAware(steps=steps, density=0.1).fit(digits, train, TARGET)
        changed.append(((attack(pixels) - pixels).abs() > 0.1).float().mean().item())
    assert changed[1] < 0.3
    assert changed[1] < changed[0] / 1.5


def test_issba_residuals_become_small_and_differ_from_image_to_image(digits: Classifier) -> None:
    train, test = digit_images(3)
    attack = Issba(steps=100, bits=4).fit(digits, train, TARGET)
    pixels = test.batch(range(64))[0]
    residual = attack(pixels) - pixels
    assert 0.002 < residual.square().mean().sqrt() < 0.15
    assert residual.std(0).mean() > 0.002  # no additive pattern does that, but where it is cut off


def test_dfst_moves_images_towards_sunrises(digits: Classifier) -> None:
    train, test = digit_images(3)
    attack = Dfst(steps=60, strength=1.0).fit(digits, train, TARGET)
    pixels, random = test.batch(range(64))[0], torch.Generator().manual_seed(5)
    style = Style(1, torch.Generator().manual_seed(9))  # other filters than the ones it was trained with
    wanted = style.gram(sunrises(32, (1, 8, 8), random)).mean(0)
    before, after = ((style.gram(images) - wanted).square().sum((1, 2)).mean() for images in (pixels, attack(pixels)))
    assert after < before / 2


def test_the_editor_keeps_any_size() -> None:
    editor = Editor(2, 3)
    for height, width in ((8, 8), (9, 14), (33, 50), (4, 5)):
        assert editor(torch.zeros(1, 2, height, width)).shape == (1, 3, height, width)
