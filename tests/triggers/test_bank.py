"""Laws of the bank of triggers, and second opinions on its parts in slow numpy."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from phard_hub.triggers import generator
from phard_hub.triggers.bank import Bank, Parts, at_size, change_size
from phard_hub.triggers.generator import Autoencoder

NONE = Parts(warp=False, latent=False, curve=False, colour=False, field=False)
PARTS = {
    "warp": replace(NONE, warp=True),
    "latent": replace(NONE, latent=True),
    "curve": replace(NONE, curve=True),
    "colour": replace(NONE, colour=True),
    "field": replace(NONE, field=True),
    "default": Parts(),
    "all": Parts(latent=True),
    "all, odd grids": Parts(latent=True, warp_grid=3, latent_grid=5, knots=7, field_grid=4),
}
SHAPES = [(1, 8, 8), (3, 32, 32), (1, 7, 9), (3, 33, 18), (3, 48, 70)]
Image = npt.NDArray[np.float64]

every_part = pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def make_bank(size: int, shape: tuple[int, int, int], parts: Parts) -> Bank:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Bank(size, shape, parts, autoencoder=Autoencoder(shape[0]).requires_grad_(False))


def wild(bank: Bank, spread: float = 0.5, seed: int = 0) -> Bank:
    """Parameters far from the identity."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=source))
    return bank


def draw(count: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Random pixels that include exact black and white."""
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
    pixels[:, :, 0, 0], pixels[:, :, -1, -1] = 0, 1
    return pixels


def bits(pixels: Tensor) -> Tensor:
    return pixels.detach().contiguous().view(torch.int32)


@every_part
@every_shape
def test_zero_parameters_are_the_identity_bit_for_bit(parts: Parts, shape: tuple[int, int, int]) -> None:
    pixels = draw(3, shape)
    assert torch.equal(bits(make_bank(2, shape, parts)(pixels, torch.tensor([0, 1, 0]))), bits(pixels))


@every_part
@every_shape
def test_strength_zero_is_the_identity_and_one_is_not(parts: Parts, shape: tuple[int, int, int]) -> None:
    pixels, bank = draw(3, shape), wild(make_bank(2, shape, parts))
    index = torch.tensor([0, 1, 0])
    assert torch.equal(bits(bank(pixels, index, torch.zeros(3))), bits(pixels))
    assert torch.equal(bank(pixels, index, torch.ones(3)), bank(pixels, index))
    assert bool((change_size(bank(pixels, index), pixels) > 0.01).all())


@every_part
def test_strength_scales_the_parameters(parts: Parts) -> None:
    pixels, bank = draw(2, (3, 16, 16)), wild(make_bank(1, (3, 16, 16), parts), 0.2)
    expected = bank(pixels, torch.tensor([0, 0]), torch.tensor([0.5, 2.0]))
    for row, strength in enumerate((0.5, 2.0)):
        scaled = make_bank(1, (3, 16, 16), parts)
        scaled.load_state_dict({name: strength * value for name, value in bank.state_dict().items()})
        assert torch.allclose(scaled.trigger(0)(pixels[row : row + 1]), expected[row : row + 1], atol=1e-5)
        assert torch.allclose(bank.trigger(0, strength)(pixels[row : row + 1]), expected[row : row + 1], atol=1e-5)


@every_part
@every_shape
def test_a_batch_of_many_triggers_is_each_trigger_alone(parts: Parts, shape: tuple[int, int, int]) -> None:
    pixels, bank = draw(6, shape), wild(make_bank(3, shape, parts), 0.2)
    index = torch.tensor([2, 0, 1, 1, 0, 2])
    together = bank(pixels, index)
    for row, number in enumerate(index.tolist()):
        alone = make_bank(1, shape, parts)
        alone.load_state_dict({name: value[number : number + 1] for name, value in bank.state_dict().items()})
        one = pixels[row : row + 1]
        assert torch.allclose(alone(one, torch.tensor([0])), together[row : row + 1], atol=1e-5)
        assert torch.allclose(bank.trigger(number)(one), together[row : row + 1], atol=1e-5)
    assert not torch.allclose(bank.trigger(0)(pixels), bank.trigger(1)(pixels), atol=1e-3)


@every_part
def test_the_parameters_of_several_rows_add_up(parts: Parts) -> None:
    pixels, bank = draw(3, (3, 16, 16)), wild(make_bank(4, (3, 16, 16), parts), 0.1)
    stamped = bank(pixels, torch.tensor([[0, 2, 3], [1, -1, -1], [-1, -1, -1]]))
    alone = make_bank(1, (3, 16, 16), parts)
    alone.load_state_dict({name: value[[0, 2, 3]].sum(0, keepdim=True) for name, value in bank.state_dict().items()})
    assert torch.allclose(stamped[:1], alone.trigger(0)(pixels[:1]), atol=1e-5)
    assert torch.allclose(stamped[1:2], bank.trigger(1)(pixels[1:2]), atol=1e-5)
    assert torch.equal(bits(stamped[2]), bits(pixels[2]))


@every_part
@every_shape
def test_shape_and_range_are_kept(parts: Parts, shape: tuple[int, int, int]) -> None:
    pixels, bank = draw(4, shape), wild(make_bank(2, shape, parts), 3.0)
    stamped = bank(pixels, torch.tensor([0, 1, 1, 0]))
    assert stamped.shape == pixels.shape
    assert bool(stamped.isfinite().all())
    assert 0 <= stamped.min().item() <= stamped.max().item() <= 1


@every_part
def test_every_parameter_gets_a_gradient_of_its_own_trigger_only(parts: Parts) -> None:
    pixels, bank = draw(4, (3, 16, 16)), make_bank(3, (3, 16, 16), parts).randomise(0)
    moved = bank(pixels, torch.tensor([0, 2, 0, 2]))
    loss = (moved * torch.linspace(-1, 1, moved.numel()).view_as(moved)).sum()
    for name, gradient in zip(
        dict(bank.named_parameters()), torch.autograd.grad(loss, list(bank.parameters())), strict=True
    ):
        assert bool(gradient.isfinite().all()), name
        size = gradient.flatten(1).norm(dim=1)
        assert bool((size[[0, 2]] > 0).all()), name
        assert size[1] == 0, name


@every_part
def test_size_of_no_change_has_a_zero_gradient(parts: Parts) -> None:
    pixels, bank = draw(2, (3, 16, 16)), make_bank(1, (3, 16, 16), parts)
    size = change_size(bank(pixels, torch.tensor([0, 0])), pixels)
    assert size.tolist() == [0.0, 0.0]
    for gradient in torch.autograd.grad(size.sum(), list(bank.parameters())):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_change_size_is_the_l2_norm_of_each_image() -> None:
    pixels, stamped = draw(3, (3, 5, 7)), draw(3, (3, 5, 7), seed=1)
    stamped[1] = pixels[1]
    stamped.requires_grad_(True)
    expected = [float(np.sqrt(((stamped[i] - pixels[i]).detach().numpy() ** 2).sum())) for i in range(3)]
    size = change_size(stamped, pixels)
    assert size.tolist() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(size.sum(), stamped)
    assert gradient[0].norm().item() == pytest.approx(1, rel=1e-5)
    assert gradient[1].norm().item() == 0


def test_randomise_is_small_and_depends_on_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (Bank(4, (3, 16, 16)).randomise(seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])
        assert value[0].ne(value[1]).any()
    pixels = draw(4, (3, 16, 16))
    size = change_size(one(pixels, torch.arange(4)), pixels)
    assert bool((size > 0).all())
    assert bool((size < 2).all())


def test_a_trigger_leaves_no_graph_and_the_input_untouched() -> None:
    pixels, bank = draw(2, (1, 8, 8)), wild(Bank(2, (1, 8, 8)))
    kept = pixels.clone()
    assert not bank.trigger(1)(pixels).requires_grad
    assert torch.equal(pixels, kept)


def test_says_what_it_is() -> None:
    parts = replace(PARTS["all, odd grids"], field=False)
    bank = make_bank(5, (3, 20, 12), parts)
    assert len(bank) == 5
    assert bank.settings() == asdict(parts)
    assert {name: tuple(value.shape) for name, value in bank.state_dict().items()} == {
        "flow": (5, 2, 3, 3),
        "shift": (5, 64),
        "scale": (5, 64),
        "gain": (5, 64, 5, 5),
        "bias": (5, 64, 5, 5),
        "knots": (5, 3, 7),
        "matrix": (5, 3, 3),
    }
    assert PARTS["field"].shapes(3, 48, 20) == {"values": (3, 32, 20)}


def test_the_latent_part_needs_an_autoencoder() -> None:
    with pytest.raises(ValueError, match="autoencoder"):
        Bank(1, (3, 8, 8), PARTS["latent"])


# Second opinions: the parts once more, one pixel at a time.


@pytest.mark.parametrize("knots", [2, 3, 64])
@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 8, 8)], ids=str)
def test_tone_curve_against_numpy(knots: int, shape: tuple[int, int, int]) -> None:
    pixels = draw(2, shape).double()
    values = torch.randn(2, shape[0], knots, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    expected = pixels.numpy().copy()
    for i in range(2):
        for c in range(shape[0]):
            expected[i, c] += np.interp(pixels[i, c].numpy(), np.linspace(0, 1, knots), values[i, c].numpy())
    assert generator.tone_curve(pixels, values).numpy() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 8, 8)], ids=str)
def test_colour_against_numpy(shape: tuple[int, int, int]) -> None:
    pixels = draw(2, shape).double()
    channels = shape[0]
    matrix = torch.randn(2, channels, channels, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    expected = pixels.numpy().copy()
    for i in range(2):
        for to in range(channels):
            for come in range(channels):
                expected[i, to] += matrix[i, to, come].item() * pixels[i, come].numpy()
    assert generator.colour(pixels, matrix).numpy() == pytest.approx(expected, abs=1e-12)


def test_stamped_at_a_size_the_change_has_it_where_the_trigger_is_large_enough() -> None:
    pixels = 0.3 + 0.4 * draw(3, (3, 8, 8))  # nothing is cut off
    bank = Bank(1, (3, 8, 8), replace(NONE, field=True))
    with torch.no_grad():
        bank.get_parameter("values").fill_(0.1)
        index, full = torch.zeros(3, dtype=torch.long), 0.1 * (3 * 64) ** 0.5
        wanted = torch.tensor([0.25, 0.5, 2.0]) * full
        stamped = at_size(lambda strength: bank(pixels, index, strength), pixels, wanted)
    assert change_size(stamped, pixels).tolist() == pytest.approx([0.25 * full, 0.5 * full, full], rel=1e-4)


def slow_bilinear(image: Image, y: float, x: float) -> float:
    """The value of one channel ``(H, W)`` at a place in pixels; beyond the border, that of the border."""
    height, width = image.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    down, right = y - top, x - left
    upper = (1 - right) * image[top, left] + right * image[top, left + 1]
    lower = (1 - right) * image[top + 1, left] + right * image[top + 1, left + 1]
    return float((1 - down) * upper + down * lower)


@pytest.mark.parametrize("grid", [4, 9])
@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 7, 12)], ids=str)
def test_warp_against_numpy(grid: int, shape: tuple[int, int, int]) -> None:
    pixels = draw(2, shape).double()
    flow = 0.4 * torch.randn(2, 2, grid, grid, generator=torch.Generator().manual_seed(4), dtype=torch.double)
    channels, height, width = shape
    enlarged = functional.interpolate(flow, size=(height, width), mode="bicubic", align_corners=True).numpy()
    smooth = np.tanh(5 * enlarged)
    expected = np.zeros((2, *shape))
    for i in range(2):
        for y in range(height):
            for x in range(width):
                # One unit is 1/16 of the way from the first to the last pixel.
                moved_x, moved_y = smooth[i, 0, y, x] * (width - 1) / 16, smooth[i, 1, y, x] * (height - 1) / 16
                for c in range(channels):
                    expected[i, c, y, x] = slow_bilinear(pixels[i, c].numpy(), y + moved_y, x + moved_x)
    assert generator.warp(pixels, flow).numpy() == pytest.approx(expected, abs=1e-9)


def test_field_against_numpy() -> None:
    pixels = draw(2, (3, 8, 12)).double()
    small = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    expected = pixels.numpy().copy()
    for i, c, y, x in np.ndindex(2, 3, 8, 12):
        # Twice as large with half a pixel between the two lattices.
        expected[i, c, y, x] += slow_bilinear(small[i, c].numpy(), (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5)
    assert generator.field(pixels, small).numpy() == pytest.approx(expected, abs=1e-12)
    same = torch.randn(2, 3, 8, 12, dtype=torch.double, generator=torch.Generator().manual_seed(6))
    assert torch.equal(generator.field(pixels, same), pixels + same)


def test_transformation_layer_against_numpy() -> None:
    source = torch.Generator().manual_seed(7)
    code, gain, bias = (torch.randn(2, 5, 4, 6, generator=source, dtype=torch.double) for _ in range(3))
    shift, scale = (torch.randn(2, 5, generator=source, dtype=torch.double) for _ in range(2))
    expected = np.zeros((2, 5, 4, 6))
    for i, c in np.ndindex(2, 5):
        channel = code[i, c].numpy()
        mean, spread = channel.mean(), channel.std(ddof=1)
        styled = (channel - mean) * np.exp(scale[i, c].item()) + mean + shift[i, c].item() * spread
        expected[i, c] = styled * (1 + gain[i, c].numpy()) + bias[i, c].numpy()
    assert generator.transform_code(code, shift, scale, gain, bias).numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (33, 18)])
def test_autoencoder_keeps_the_size(size: tuple[int, int]) -> None:
    autoencoder = Autoencoder(3)
    pixels = torch.rand(2, 3, *size)
    assert autoencoder(pixels).shape == pixels.shape
    assert autoencoder.encoder(pixels).shape == (2, Autoencoder.width, size[0] // 2, size[1] // 2)


def test_triggers_of_a_single_kind_take_only_their_part() -> None:
    """Side by side with others, to the bit the same and with the same gradients as in a bank of that part alone."""
    kinds = ["warp", "colour", "field", ""]
    bank = Bank(4, (3, 16, 16)).randomise(0)
    bank.only(kinds)
    pixels, index = draw(8, (3, 16, 16)), torch.arange(8) % 4
    together = bank(pixels, index)
    gradients = torch.autograd.grad(together.square().sum(), list(bank.parameters()))
    with torch.no_grad():
        assert torch.equal(bank(pixels, index), together)
    for row, kind in enumerate(kinds):
        mine = index == row
        assert not torch.equal(together[mine], pixels[mine])
        alone = Bank(4, (3, 16, 16), Parts().only(kind) if kind else Parts()).randomise(0)
        alone.load_state_dict({name: bank.get_parameter(name) for name in dict(alone.named_parameters())})
        stamped = alone(pixels[mine], index[mine])
        assert torch.equal(together[mine], stamped)
        parameters = dict(alone.named_parameters())
        theirs = torch.autograd.grad(stamped.square().sum(), list(parameters.values()))
        expected = dict(zip(parameters, theirs, strict=True))
        for name, gradient in zip(bank.parameter_names, gradients, strict=True):
            wanted = expected[name][row] if name in expected else torch.zeros_like(gradient[row])
            assert torch.allclose(gradient[row], wanted, rtol=1e-5, atol=1e-5), name
