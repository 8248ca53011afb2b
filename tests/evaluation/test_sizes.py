"""The size of a trigger: laws, and a slow reading of SSIM."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from phard_hub.attacks import Blend, WaNet
from phard_hub.evaluation.sizes import trigger_size
from phard_hub.report.record import TriggerSize
from tests.small import global_random_state, noise_images


def test_nothing_has_no_size() -> None:
    assert trigger_size(lambda pixels: pixels, noise_images(2, 2, (3, 16, 16))) == TriggerSize(
        l2=0.0, rms=0.0, ssim=1.0, n=4
    )


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 8), (3, 20, 33)])
def test_a_flat_change_has_its_height_in_grey_levels(shape: tuple[int, int, int]) -> None:
    size = trigger_size(lambda pixels: pixels + 10 / 255, noise_images(2, 2, shape))
    assert size.rms == pytest.approx(10, rel=1e-4)
    assert size.l2 == pytest.approx(10 / 255 * math.sqrt(math.prod(shape)), rel=1e-4)
    assert size.ssim < 1


def slow_ssim(one: Tensor, other: Tensor) -> float:
    """Mean over all places of a window of 11 x 11; the image is mirrored at its border."""
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    window /= window.sum()
    padded = [np.pad(image.double().numpy(), ((0, 0), (5, 5), (5, 5)), "reflect") for image in (one, other)]
    values = []
    for x, y in zip(*padded, strict=True):
        for row, column in np.ndindex(x.shape[0] - 10, x.shape[1] - 10):
            a, b = (image[row : row + 11, column : column + 11] for image in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
            together = (window * a * b).sum() - mean_a * mean_b
            light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            values.append(light * (2 * together + 0.03**2) / (variance_a + variance_b + 0.03**2))
    return float(np.mean(values))


@pytest.mark.parametrize("trigger", [Blend(), WaNet(strength=4.0)], ids=str)
def test_ssim_and_l2_against_loops(trigger: Blend) -> None:
    images = noise_images(1, 2, (3, 14, 17))
    pixels = images.batch(range(2))[0]
    stamped, state = trigger(pixels), global_random_state()
    size = trigger_size(trigger, images)
    similar = [slow_ssim(*pair) for pair in zip(stamped, pixels, strict=True)]
    assert size.ssim == pytest.approx(np.mean(similar), abs=1e-4)
    norms = [math.sqrt(sum(float(value) ** 2 for value in row)) for row in (stamped - pixels).flatten(1)]
    assert size.l2 == pytest.approx(np.mean(norms), rel=1e-5)
    assert str(size).startswith(f"L2 {size.l2:.2f}, ")
    assert global_random_state() == state


def test_every_image_counts_once_however_many_there_are() -> None:
    images = noise_images(200, 2, (3, 8, 8))
    chosen = torch.arange(400) % 3 == 0

    def dim(pixels: Tensor) -> Tensor:
        return pixels / 2

    parts = [trigger_size(dim, images.take(part.nonzero().flatten())) for part in (chosen, ~chosen)]
    expected = sum(part.n * part.l2 for part in parts) / 400
    assert trigger_size(dim, images).l2 == pytest.approx(expected, rel=1e-5)
