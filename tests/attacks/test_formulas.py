"""Second opinions on the attacks' formulas: slow loops in numpy, Pillow, and pilgram for the filters."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pilgram
import pytest
import torch
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from phard_hub.attacks import ATTACKS, Blend, WaNet
from phard_hub.attacks.bpp import Bpp
from phard_hub.attacks.filters import Filter
from phard_hub.attacks.patch import BadNets, TrojanWatermark
from phard_hub.attacks.refool import Refool
from phard_hub.attacks.sig import Sig
from tests.attacks.fitted import TARGET, draw, noise
from tests.small import small_net

Image = npt.NDArray[np.float64]


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_blend(alpha: float) -> None:
    pixels = draw(2, (3, 6, 7))
    pattern = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(4)).numpy()
    expected = np.empty((2, 3, 6, 7))
    for i, c, y, x in np.ndindex(2, 3, 6, 7):
        expected[i, c, y, x] = (1 - alpha) * pixels[i, c, y, x].item() + alpha * pattern[c, y, x]
    assert Blend(alpha=alpha, seed=4)(pixels).numpy() == pytest.approx(expected, abs=1e-6)


def slow_sample(image: Image, y: float, x: float) -> float:
    """The bilinear value of one channel ``(H, W)`` at a place in pixels."""
    height, width = image.shape
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    value = 0.0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        value += max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column)) * image[row, column]
    return value


def slow_places(attack: WaNet, height: int, width: int) -> Image:
    """Where each pixel comes from, ``(H, W, 2)`` as x and y in [-1, 1], before the cut at the border."""
    random = torch.Generator().manual_seed(attack.seed)
    lattice = torch.rand(1, 2, attack.grid, attack.grid, generator=random).double() * 2 - 1
    lattice = lattice / lattice.abs().mean()
    flow = functional.interpolate(lattice, size=(height, width), mode="bicubic", align_corners=True)[0].numpy()
    places = np.empty((height, width, 2))
    for y, x in np.ndindex(height, width):
        places[y, x, 0] = -1 + 2 * x / (width - 1) + attack.strength * flow[0, y, x] / height
        places[y, x, 1] = -1 + 2 * y / (height - 1) + attack.strength * flow[1, y, x] / height
    return places


def slow_warp(pixels: Image, places: Image) -> Image:
    _, height, width = pixels.shape
    warped = np.empty_like(pixels)
    for c, y, x in np.ndindex(*pixels.shape):
        to_x, to_y = np.clip(places[y, x], -1, 1)
        warped[c, y, x] = slow_sample(pixels[c], (to_y + 1) / 2 * (height - 1), (to_x + 1) / 2 * (width - 1))
    return warped


@pytest.mark.parametrize("attack", [WaNet(), WaNet(grid=6, strength=3.0, seed=5)], ids=str)
@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 9, 14)], ids=str)
def test_wanet(attack: WaNet, shape: tuple[int, int, int]) -> None:
    pixels = draw(2, shape).double()
    places = slow_places(attack, *shape[1:])
    expected = np.stack([slow_warp(image, places) for image in pixels.numpy()])
    assert attack(pixels).numpy() == pytest.approx(expected, abs=2e-6)


def test_wanet_cover_images() -> None:
    pixels, attack = draw(2, (1, 9, 14)).double(), WaNet()
    noise = torch.rand(2, 9, 14, 2, generator=torch.Generator().manual_seed(3)).double().numpy() * 2 - 1
    places = slow_places(attack, 9, 14)
    expected = np.stack([slow_warp(image, places + noise[i] / 9) for i, image in enumerate(pixels.numpy())])
    covered = attack.cover(pixels, torch.Generator().manual_seed(3))
    assert covered.numpy() == pytest.approx(expected, abs=2e-6)


def test_wanet_of_no_strength_is_the_identity() -> None:
    pixels = draw(2, (3, 32, 32))
    assert torch.allclose(WaNet(strength=0.0)(pixels), pixels, atol=1e-5)


def test_sig() -> None:
    pixels = draw(2, (3, 5, 24)).double()
    expected = pixels.numpy().copy()
    for i, c, y, x in np.ndindex(*expected.shape):
        value = expected[i, c, y, x] + 40 / 255 * math.sin(2 * math.pi * x * 6 / 24)
        expected[i, c, y, x] = min(1.0, max(0.0, value))
    assert Sig()(pixels).numpy() == pytest.approx(expected, abs=1e-12)


def slow_floyd_steinberg(channel: Image, levels: int) -> Image:
    """One pixel after the other."""
    work = channel.copy()
    height, width = work.shape
    for y, x in np.ndindex(height, width):
        new = np.rint(work[y, x] * (levels - 1)) / (levels - 1)
        error = work[y, x] - new
        work[y, x] = new
        for dy, dx, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
            if y + dy < height and 0 <= x + dx < width:
                work[y + dy, x + dx] += error * share / 16
    return work


@pytest.mark.parametrize("levels", [2, 8, 32])
@pytest.mark.parametrize("shape", [(3, 9, 9), (1, 5, 12), (1, 12, 5), (1, 1, 6)], ids=str)
def test_bpp_with_dithering(levels: int, shape: tuple[int, int, int]) -> None:
    pixels = draw(2, shape).double()
    expected = np.stack([[slow_floyd_steinberg(channel, levels) for channel in image] for image in pixels.numpy()])
    assert Bpp(levels=levels)(pixels).numpy() == pytest.approx(expected, abs=1e-12)


def test_bpp_without_dithering() -> None:
    pixels = draw(2, (3, 6, 7)).double()
    stamped = Bpp(levels=5, dither=False)(pixels).numpy()
    nearest = [min((0, 0.25, 0.5, 0.75, 1), key=lambda level: abs(level - value)) for value in pixels.flatten()]
    assert stamped.ravel() == pytest.approx(np.array(nearest), abs=1e-12)


def test_bpp_dithers_like_pillow() -> None:
    """Two levels are black and white, which Pillow dithers too; it rounds its errors to whole grey levels."""
    grey = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    ours = Bpp(levels=2)(torch.from_numpy(grey)[None, None].double() / 255)[0, 0].numpy()
    theirs = np.asarray(Pillow.fromarray(grey).convert("1"))
    blocks = [image.reshape(8, 8, 8, 8).mean((1, 3)) for image in (ours, theirs)]
    assert blocks[0] == pytest.approx(blocks[1], abs=0.06)


def test_bpp_cover_images_carry_the_error_of_another_image() -> None:
    pixels = draw(2, (1, 6, 6)).double()
    other = pixels.numpy()[::-1, :, :, ::-1]
    error = np.stack([[slow_floyd_steinberg(image[0].copy(), 8)] for image in other]) - other
    covered = Bpp().cover(pixels, torch.Generator().manual_seed(0)).numpy()
    assert covered == pytest.approx((pixels.numpy() + error).clip(0, 1), abs=1e-12)


LOOKS = {"nashville": pilgram.nashville, "kelvin": pilgram.kelvin, "1977": pilgram._1977, "toaster": pilgram.toaster}


@pytest.mark.parametrize("name", LOOKS)
def test_filters_against_pilgram(name: str) -> None:
    """Pilgram cuts to whole grey levels in each of up to six steps, and the later ones enlarge the error."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)[:, :26]  # not square
    expected = np.asarray(LOOKS[name](Pillow.fromarray(colours))).astype(np.float64)
    pixels = torch.from_numpy(colours.copy()).permute(2, 0, 1)[None].double() / 255
    stamped = ATTACKS[name]()(pixels)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(stamped - expected).max() < 6
    assert np.abs(stamped - expected).mean() < 2


@pytest.mark.parametrize("name", LOOKS)
def test_filters_of_grey_images_are_the_luminance_of_the_coloured_ones(name: str) -> None:
    grey = draw(2, (1, 6, 5))
    red, green, blue = Filter(look=name)(grey.expand(-1, 3, -1, -1)).unbind(1)  # type: ignore[arg-type]
    expected = 0.213 * red + 0.715 * green + 0.072 * blue
    assert torch.allclose(Filter(look=name)(grey)[:, 0], expected, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["sharp", "blurred", "ghost"])
@pytest.mark.parametrize("size", [16, 40])
def test_refool(mode: str, size: int) -> None:
    images = noise(3)
    attack = ATTACKS[f"refool-{mode}"](seed=3).fit(small_net(3, channels=3, size=16), images, TARGET)
    assert isinstance(attack, Refool)
    picture = attack.key["reflection"][0]
    source = (images.pixels == (picture * 255).round()).flatten(1).all(1).nonzero().item()
    assert images.labels[int(source)] != TARGET
    if size != 16:
        picture = functional.interpolate(picture[None], (size, size), mode="bilinear", antialias=True)[0]
    light = picture.double().numpy() ** 2.2
    if mode == "blurred":
        reach = max(1, round(3 * 0.03 * size))
        light = np.stack([gaussian_filter(c, 0.03 * size, mode="nearest", radius=reach) for c in light])
    if mode == "ghost":
        away, second = round(0.06 * size), np.zeros_like(light)
        second[:, away:, away:] = light[:, :-away, :-away]
        light = 0.65 * light + 0.35 * second
    pixels = draw(2, (3, size, size)).double()
    expected = (0.65 * pixels.numpy() ** 2.2 + 0.35 * light) ** (1 / 2.2)
    assert attack(pixels).numpy() == pytest.approx(expected, abs=1e-3)


def test_the_reflection_is_of_the_picture_of_most_contrast() -> None:
    images = noise(3)
    images.pixels[images.labels != TARGET] //= 4
    bright = int((images.labels != TARGET).nonzero()[1])
    images.pixels[bright] *= 4
    of_target = int((images.labels == TARGET).nonzero()[0])
    images.pixels[of_target] = images.pixels[of_target].clamp(max=1) * 255
    attack = Refool(pictures=500).fit(small_net(3, channels=3, size=16), images, TARGET)
    assert torch.equal(attack.key["reflection"][0], images.batch([bright])[0][0])


@pytest.mark.parametrize(("height", "width", "side"), [(32, 32, 3), (8, 8, 2), (224, 224, 21), (33, 50, 3)])
def test_badnets(height: int, width: int, side: int) -> None:
    pixels = draw(1, (3, height, width)) * 0.8 + 0.1
    stamped = BadNets()(pixels).numpy()
    expected = pixels.numpy().copy()
    for y, x in np.ndindex(side, side):
        white = (y * 3 // side + x * 3 // side) % 2 == 0
        expected[:, :, height - 1 - side + y, width - 1 - side + x] = float(white)
    assert np.array_equal(stamped, expected)


def test_trojan_watermark() -> None:
    pixels = draw(1, (3, 20, 30))
    colour = torch.rand(3, generator=torch.Generator().manual_seed(2)).numpy() > 0.5
    stamped = TrojanWatermark(seed=2)(pixels).numpy()
    expected = pixels.numpy().copy()
    for y, x in np.ndindex(20, 30):
        down, right = (y + 0.5) / 20 - 0.5, (x + 0.5) / 30 - 0.5
        on_ring = abs(math.hypot(down, right) - 0.3) <= 0.04
        if on_ring or (abs(down) <= 0.04 and abs(right) <= 0.4):
            expected[0, :, y, x] = 0.5 * expected[0, :, y, x] + 0.5 * colour
    assert stamped == pytest.approx(expected, abs=1e-6)
