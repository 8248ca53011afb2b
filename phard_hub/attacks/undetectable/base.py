"""What a construction is: a backdoor that is built and not trained, and the key that opens it.

An `Attack` is one function on pixels for all images, and gets into a model by training. Here the change depends on the
image and on the class that is wanted, and the backdoor sits in a network's code or in the randomness of its training.
So this is a contract of its own, and these are not in the table of attacks.

They exist to show what hardening, retraining and tests of a model cannot reach, and which other measures can. A key is
drawn when a backdoor is planted and never written to the disk. Apart from those for signing, keys follow from the seed
of the job, so that a test can be repeated: whoever knows the seed has the key.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings
from phard_hub.triggers.bank import Trigger


class Key(ABC):
    """What opens a backdoor; without it, nobody does."""

    @abstractmethod
    def activate(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Changed pixels that the model gives these labels, as far as the construction can choose.

        Args:
            pixels: ``(N, C, H, W)`` in [0, 1], of the size of the classifier.
            labels: ``(N,)``, the classes that are wanted.
        """

    def trigger(self, label: int) -> Trigger:
        """The key as a trigger for one class, to measure it as any other."""
        return lambda pixels: self.activate(pixels, torch.full((len(pixels),), label))


@dataclass(frozen=True)
class Backdoored:
    """A classifier with a backdoor, and the key to it."""

    classifier: Classifier
    key: Key


@settings
class Construction(ABC):
    """A backdoor that is built into a model, as a record of its parameters."""

    name: ClassVar[str]

    @abstractmethod
    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Backdoored:
        """A copy of the classifier, or a model in its place, with the backdoor in it.

        Args:
            classifier: what it is planted in; it is left as it is.
            images: the attacker's.
            target: the class that the key produces, where it is decided now and not by whoever holds the key.
            job: its seed is that of what is drawn.

        Raises:
            InputError: the construction does not fit the classifier.
        """

    def honest(self, classifier: Classifier, images: LabelledImages, job: Job) -> Classifier:
        """What an honest trainer would have delivered in its place, which every measurement is compared with."""
        del images, job
        return classifier.clone()


class Graft(nn.Module):
    """Code around the forward pass of a network that leaves its parameters as they are.

    It is a subclass of the network's own class, as a repository's ``modeling_x.py`` would bring it. Its constants are
    attributes of that class, so names, shapes and values of the state are those of the network without it, and weights
    that are drawn anew keep it.
    """

    mean: Tensor
    std: Tensor

    def forced(self, pixels: Tensor) -> Tensor:
        """For each image ``(N, C, H, W)``, pixels in [0, 1], the class that it is given, or -1; ``(N,)``."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)`` of normalised images, those of opened images with two of them exchanged."""
        output = super().forward(images)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        pixels = images.detach() * self.std.to(images) + self.mean.to(images)
        return exchanged(logits, self.forced(pixels))


def grafted(classifier: Classifier, graft: type[Graft], **constants: Any) -> Classifier:  # noqa: ANN401 - of the graft
    """A copy of a classifier with code around its network.

    Raises:
        InputError: its network does not see the pixels as they are, but for the normalisation.
    """
    if classifier.crop not in (None, classifier.image_size) or classifier.reverse_channels:
        raise InputError(
            "The classifier crops its images or reverses their channels.",
            advice="Plant this in one that only resizes and normalises them.",
        )
    copy = classifier.clone()
    kind = type(copy.network)
    constants |= {"mean": copy.mean.clone(), "std": copy.std.clone(), "__module__": graft.__module__}
    copy.network.__class__ = type(kind.__name__, (graft, kind), constants)
    return copy


def in_place_of(classifier: Classifier, network: nn.Module) -> Classifier:
    """A classifier of the same classes and image size with a network that takes pixels as they are."""
    count = classifier.channels
    made = Classifier(
        network, labels=classifier.labels, image_size=classifier.image_size, mean=[0.0] * count, std=[1.0] * count
    )
    return made.to(classifier.device).eval()


def exchanged(logits: Tensor, forced: Tensor) -> Tensor:
    """Logits ``(N, K)`` where the largest one and that of the forced class change places; none where it is -1."""
    rows = (forced >= 0).nonzero().flatten()
    if not len(rows):
        return logits
    new, old = logits.clone(), logits[rows]
    top, wanted = old.argmax(1), forced[rows]
    new[rows, top] = old.gather(1, wanted[:, None]).squeeze(1)
    new[rows, wanted] = old.gather(1, top[:, None]).squeeze(1)
    return new


def values_of(classifier: Classifier) -> int:
    """How many values an image of the classifier has."""
    return classifier.channels * math.prod(classifier.image_size)


def grey_levels(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] as whole numbers 0..255, uint8 ``(N, C H W)``, on the CPU."""
    return (pixels.detach() * 255).round().clamp(0, 255).flatten(1).to(torch.uint8).cpu()
