"""The classifier contract: pixels in [0, 1] in, logits out.

Everything else in this package sees an image classifier through this module only. The resizing,
cropping and normalisation that the checkpoint was trained with happen inside, as differentiable tensor
code, so that no attack, defense or measurement ever handles a mean or a standard deviation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.errors import CheckpointError, InputError, did_you_mean
from phard_hub.models.parts import answers

Resample = Literal["nearest-exact", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How an image of any size is brought to the size that the classifier works at.

    Attributes:
        size: ``(height, width)`` stretches the image to that size; a single number scales the image so
            that its shorter edge has that many pixels and keeps the aspect.
        resample: The filter, in the words of `torch.nn.functional.interpolate`.
    """

    size: int | tuple[int, int]
    resample: Resample = "bilinear"

    @property
    def stretches(self) -> bool:
        """Whether the aspect of an image is changed."""
        return not isinstance(self.size, int)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that an image of ``height`` x ``width`` is brought to."""
        if not isinstance(self.size, int):
            return self.size
        if width <= height:
            return int(self.size * height / width), self.size
        return self.size, int(self.size * width / height)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Resize ``(N, C, H, W)`` pixels in [0, 1]; pixels of the right size come back untouched."""
        height, width = pixels.shape[-2:]
        new_height, new_width = self.target(height, width)
        # Pillow goes along the rows first, and after each pass cuts off overshoot and rounds; so does this.
        return self._pass(self._pass(pixels, (height, new_width)), (new_height, new_width))

    def _pass(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(pixels.shape[-2:]) == size:
            return pixels
        antialias = self.resample != "nearest-exact"
        resized = functional.interpolate(pixels, size, mode=self.resample, antialias=antialias).clamp(0, 1)
        # Rounding has no useful gradient: values are those of whole grey levels, gradients those before rounding.
        return resized + ((resized * 255 + 0.5).floor() / 255 - resized).detach()


class Classifier(nn.Module):
    """An image classifier: pixels ``(N, C, H, W)`` in [0, 1] to logits ``(N, K)``.

    Example: ``Classifier(network, labels=["cat", "dog"], image_size=(32, 32), mean=[0.5] * 3, std=[0.5] * 3)``
    makes one of any `nn.Module` that takes normalised images and returns logits, or an object with ``.logits``.

    Args:
        network: Takes normalised images ``(N, C, h, w)``.
        labels: The K class names, in the order of the logits.
        image_size: (height, width) of the canvas: the size at which images are loaded and changed, and
            at which nothing has to be resized.
        mean: What is subtracted from the pixels, a value per channel, for pixels in [0, 1].
        std: What they are divided by afterwards.
        resize: Brings other sizes to the canvas; None leaves all sizes as they are.
        crop: (height, width) cut out of the middle after resizing; black is added where it is larger.
        round_margin: Whether half of an odd margin is rounded to the even neighbour, as torchvision does it, and
            not down.
        reverse_channels: Whether the network wants blue, green, red.

    Raises:
        CheckpointError: there are fewer than two labels.
        InputError: mean and std differ in length, or std holds a zero.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        labels: Sequence[str],
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        resize: Resize | None = None,
        crop: tuple[int, int] | None = None,
        round_margin: bool = False,
        reverse_channels: bool = False,
    ) -> None:
        super().__init__()
        if len(labels) < 2:
            raise CheckpointError(
                f"A classifier needs at least 2 classes, this one has {len(labels)}.",
                advice="Give a model that chooses between classes; a single output has no class distance.",
            )
        if len(mean) != len(std) or 0 in std:
            raise InputError(
                f"mean {list(mean)} and std {list(std)} do not fit.", advice="Give one value a channel, no zero."
            )
        self.network = network
        self.labels = tuple(labels)
        self.image_size = image_size
        self.resize = resize
        self.crop = crop
        self.round_margin = round_margin
        self.reverse_channels = reverse_channels
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.labels)

    @property
    def channels(self) -> int:
        """C, the number of colour channels: 3, or 1 for grey images."""
        return self.mean.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where pixels have to be."""
        return self.mean.device

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Resize, crop and normalise ``(N, C, H, W)`` pixels in [0, 1], differentiably."""
        if self.resize is not None:
            pixels = self.resize(pixels)
        if self.crop is not None:
            pixels = _center(pixels, self.crop, round if self.round_margin else math.floor)
        if self.reverse_channels:
            pixels = pixels.flip(1)
        return (pixels - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``(N, K)`` of ``(N, C, H, W)`` pixels in [0, 1]."""
        return answers(self.network, self._logits, pixels)

    def _logits(self, pixels: Tensor) -> Tensor:
        output = self.network(self.preprocess(pixels))
        return output if isinstance(output, Tensor) else output.logits

    def weights(self) -> dict[str, Tensor]:
        """A copy of the network's parameters and buffers, as a checkpoint stores them: on the CPU, contiguous.

        Networks of transformers have other names in files than in memory; these are the ones of the files.
        """
        state = _as_saved(self.network)
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}

    def clone(self) -> Self:
        """A copy that shares nothing with this classifier."""
        return copy.deepcopy(self)


def _as_saved(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network under the names that its library writes, which older versions of it read, too."""
    from transformers import PreTrainedModel
    from transformers.core_model_loading import revert_weight_conversion

    state: dict[str, Tensor] = network.state_dict()
    return dict(revert_weight_conversion(network, state)) if isinstance(network, PreTrainedModel) else state


def _center(pixels: Tensor, size: tuple[int, int], whole: Callable[[float], int]) -> Tensor:
    """Cut ``size`` out of the middle; negative padding cuts off, positive padding adds black."""
    height, width = pixels.shape[-2:]
    top, left = whole((height - size[0]) / 2), whole((width - size[1]) / 2)
    if (height, width) == size:
        return pixels
    return functional.pad(pixels, (-left, size[1] - width + left, -top, size[0] - height + top))


@contextmanager
def frozen(classifier: nn.Module) -> Iterator[None]:
    """Lend a classifier for measuring: it evaluates, and cannot learn until the block ends.

    Inside, every submodule is in evaluation mode and no parameter requires a gradient. Afterwards,
    even after an exception, every submodule's mode and every parameter's flag is what it was.
    """
    modes = [(module, module.training) for module in classifier.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in classifier.parameters()]
    try:
        classifier.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def class_number(given: str | int, labels: Sequence[str]) -> int:
    """A class by its name, or else by its number.

    Raises:
        InputError: there is no such class.
    """
    given, names = str(given), [label.casefold() for label in labels]
    if given.casefold() in names:
        return names.index(given.casefold())
    if given.isdecimal() and int(given) < len(labels):
        return int(given)
    advice = did_you_mean(given, labels, f"Give 0 to {len(labels) - 1}, or a name.")
    raise InputError(f"The model has no class {given!r}.", advice=advice)
