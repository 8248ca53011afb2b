"""The classifier contract, on networks small enough to know the answer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from phard_hub.errors import CheckpointError, InputError
from phard_hub.models.classifier import Classifier, Resize, frozen

LABELS = ("cat", "dog")


class Echo(nn.Module):
    """Returns what it was given, as ``.logits``."""

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=pixels)


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.LazyLinear(2))


def small() -> Classifier:
    classifier = Classifier(small_network(), labels=LABELS, image_size=(8, 8), mean=[0.5] * 3, std=[0.25] * 3)
    classifier(torch.rand(2, 3, 8, 8))
    return classifier


def echo(**arguments: object) -> Classifier:
    return Classifier(Echo(), labels=LABELS, image_size=(4, 4), mean=[0.0] * 3, std=[1.0] * 3, **arguments)  # type: ignore[arg-type]


def test_says_what_it_is() -> None:
    classifier = small()
    assert classifier.num_classes == 2
    assert classifier.labels == LABELS
    assert classifier.channels == 3
    assert classifier.image_size == (8, 8)
    assert classifier.device == torch.device("cpu")


def test_normalises_and_unpacks_logits() -> None:
    classifier = Classifier(Echo(), labels=LABELS, image_size=(2, 2), mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    pixels = torch.rand(1, 3, 2, 2)
    expected = (pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    assert torch.equal(classifier(pixels), expected)


def test_mean_and_std_are_no_part_of_the_weights() -> None:
    classifier = small()
    assert set(classifier.weights()) == set(classifier.network.state_dict())
    assert not {"mean", "std"} & set(classifier.state_dict())


@pytest.mark.parametrize("size", [(4, 4), 4])
def test_the_canvas_is_not_resized(size: int | tuple[int, int]) -> None:
    pixels = torch.rand(2, 3, 4, 4)
    assert Resize(size=size, resample="bicubic")(pixels) is pixels
    assert torch.equal(echo(resize=Resize(size=size))(pixels), pixels)


@pytest.mark.parametrize(("size", "expected"), [((4, 6), (4, 6)), (5, (5, 10))])
def test_other_sizes_are_resized_within_the_range(size: int | tuple[int, int], expected: tuple[int, int]) -> None:
    resized = Resize(size=size, resample="bicubic")(torch.rand(1, 3, 11, 22).round())
    assert resized.shape[-2:] == expected
    assert resized.min() >= 0
    assert resized.max() <= 1
    assert torch.allclose(resized * 255, (resized * 255).round(), atol=1e-4)


def test_crop_takes_the_middle_and_pads_with_black() -> None:
    pixels = torch.rand(1, 3, 5, 5)
    assert torch.equal(echo(crop=(3, 3))(pixels), pixels[..., 1:4, 1:4])
    padded = echo(crop=(7, 3))(pixels)
    assert padded.shape[-2:] == (7, 3)
    assert torch.equal(padded[..., 1:6, :], pixels[..., 1:4])
    assert padded[..., 0, :].abs().sum() == 0


def test_an_odd_margin_is_halved_down_or_to_the_even_number() -> None:
    pixels = torch.rand(1, 3, 7, 9)  # margins of 3 and 5
    assert torch.equal(echo(crop=(4, 4))(pixels), pixels[..., 1:5, 2:6])
    assert torch.equal(echo(crop=(4, 4), round_margin=True)(pixels), pixels[..., 2:6, 2:6])


def test_reverses_channels() -> None:
    pixels = torch.rand(1, 3, 4, 4)
    assert torch.equal(echo(reverse_channels=True)(pixels), pixels.flip(1))


def test_gradients_reach_the_pixels_of_a_photo() -> None:
    pixels = torch.rand(1, 3, 9, 14, requires_grad=True)
    classifier = echo(resize=Resize(size=4), crop=(4, 4))
    (gradient,) = torch.autograd.grad(classifier(pixels).sum(), pixels)
    assert gradient.abs().sum() > 0


def test_memory_layout_does_not_matter() -> None:
    classifier = small().eval()
    pixels = torch.rand(2, 3, 8, 8)
    expected = classifier(pixels)
    classifier = classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.allclose(classifier(pixels.to(memory_format=torch.channels_last)), expected, atol=1e-6)
    assert all(tensor.is_contiguous() for tensor in classifier.weights().values())


def test_weights_are_a_copy() -> None:
    classifier = small()
    before = classifier.weights()["0.weight"].clone()
    kept = classifier.weights()
    with torch.no_grad():
        next(classifier.parameters()).add_(1)
    assert torch.equal(kept["0.weight"], before)


def test_a_clone_shares_nothing() -> None:
    classifier = small()
    clone = classifier.clone()
    own = {tensor.data_ptr() for tensor in (*classifier.parameters(), *classifier.buffers())}
    assert not own & {tensor.data_ptr() for tensor in (*clone.parameters(), *clone.buffers())}
    assert clone.labels == classifier.labels


def test_frozen_leaves_no_mark() -> None:
    classifier = small().train()
    assert isinstance(classifier.network, nn.Sequential)
    classifier.network[1].eval()
    first = next(classifier.parameters()).requires_grad_(False)
    modes = [module.training for module in classifier.modules()]
    flags = [parameter.requires_grad for parameter in classifier.parameters()]
    state = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), frozen(classifier):  # noqa: PT012 - the block is what is tested
        assert not any(module.training for module in classifier.modules())
        assert not any(parameter.requires_grad for parameter in classifier.parameters())
        classifier(torch.rand(4, 3, 8, 8))
        raise KeyboardInterrupt
    assert [module.training for module in classifier.modules()] == modes
    assert [parameter.requires_grad for parameter in classifier.parameters()] == flags
    assert not first.requires_grad
    assert all(torch.equal(state[name], tensor) for name, tensor in classifier.state_dict().items())


def test_refuses_one_class() -> None:
    with pytest.raises(CheckpointError, match="at least 2 classes"):
        Classifier(Echo(), labels=["cat"], image_size=(2, 2), mean=[0.0], std=[1.0])


@pytest.mark.parametrize("std", [[1.0], [1.0, 0.0, 1.0]])
def test_refuses_a_std_that_does_not_fit(std: list[float]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        Classifier(Echo(), labels=LABELS, image_size=(2, 2), mean=[0.0] * 3, std=std)
