"""A batch in parts: the same answers and gradients as the whole, of which less is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from phard_hub.hardware import computing, images_with_gradient
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.parts import in_parts
from tests.small import same_weights, small_net

PIXELS = torch.rand(11, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def in_groups(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


def gradients(classifier: Classifier, at_once: int | None) -> list[Tensor]:
    """Answers, and gradients of the first and of the second order, of a loss in which images are not alike."""
    pixels = PIXELS.clone().requires_grad_(True)
    with in_parts(at_once):
        logits = classifier(pixels)
        (slope,) = torch.autograd.grad((logits[::2] ** 2).sum(), pixels, create_graph=True)
        classifier.zero_grad()
        (logits.softmax(1)[:, 0].sum() + slope.square().sum()).backward()
    assert pixels.grad is not None
    return [logits.detach(), pixels.grad, *(each.grad for each in classifier.parameters() if each.grad is not None)]


@pytest.mark.parametrize("at_once", [1, 3, 5, 10])
def test_answers_and_gradients_are_those_of_the_whole(at_once: int) -> None:
    whole, parts = (gradients(small_net(3, norm=in_groups), each) for each in (None, at_once))
    assert len(whole) == len(parts) == 2 + len(list(small_net(3).parameters()))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def seen(act: Callable[[Classifier], object], at_once: int | None) -> list[int]:
    """How many images each pass through the network takes."""
    classifier, found = small_net(3), []
    classifier.network.register_forward_pre_hook(lambda _network, inputs: found.append(len(inputs[0])))
    with in_parts(at_once):
        act(classifier)
    return found


def test_nothing_is_done_twice_but_for_a_gradient() -> None:
    assert seen(lambda classifier: classifier(PIXELS).sum().backward(), 4) == [4, 4, 3, 3, 4, 4]
    assert seen(lambda classifier: classifier(PIXELS).sum().backward(), 11) == [11]
    assert seen(lambda classifier: classifier(PIXELS).sum().backward(), None) == [11]
    with torch.no_grad():
        assert seen(lambda classifier: classifier(PIXELS), 4) == [11]


def kept_bytes(at_once: int | None) -> int:
    """What is kept of a forward pass for its gradient."""
    classifier, sizes = small_net(3), []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with in_parts(at_once), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        classifier(PIXELS)
    return sum(sizes)


def test_hardly_anything_is_kept() -> None:
    assert kept_bytes(4) < 0.05 * kept_bytes(None)


def test_running_statistics_see_each_part_once() -> None:
    classifier, parts = small_net(3), small_net(3)
    for k in range(3):
        classifier(PIXELS[k::3])
    with in_parts(4):
        parts(PIXELS).sum().backward()
    assert same_weights(classifier, parts)
    judging = parts.clone()
    with frozen(parts), in_parts(4):
        parts(PIXELS.clone().requires_grad_(True)).sum().backward()
    assert same_weights(parts, judging)


def test_how_many_are_kept() -> None:
    cpu = torch.device("cpu")
    assert images_with_gradient((3, 32, 32), cpu) == 2000
    assert images_with_gradient((3, 224, 224), cpu) == 40
    with computing(at_once=7):
        assert images_with_gradient((3, 32, 32), cpu) == 7
