"""A backdoor that no test finds, live: a check of a signature beside the network. Pure functions.

The same weights answer twice: in the library's own class, and in one whose code checks a signature hidden in the lowest
bits of the image. The key is drawn when the page starts, lies in its memory only, and is gone when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from phard_hub import Classifier, Job, LabelledImages, demo_images
from phard_hub.attacks.undetectable import Backdoored, Signature
from phard_hub.defenses import Immunizer, Smoothing
from phard_hub.errors import InputError
from spaces_app.examples import Example
from spaces_app.look import View, look

PLAIN, SIGNED = "the library's own class", "code that checks a signature"
"""Both have the weights of the honest model."""
COMPARED = 1000
"""Images on which the two are compared."""
VOTING = Smoothing(sigma=0.15, votes=500)
"""How the model that checks is asked under noise."""


@dataclass(frozen=True)
class Signing:
    """A signed image beside the original.

    Attributes:
        view: both, the change, and what both models answer.
        changed: values of the image that are not the same.
        values: of an image.
        most: the largest change of a value in grey levels (0-255).
    """

    view: View
    changed: int
    values: int
    most: int


class Vote(NamedTuple):
    """What the model with the check answers to a signed image behind votes under noise.

    Attributes:
        answer: the class, or None where the votes are not clear.
        radius: no change of the image below this L2 norm (pixels in [0, 1]) turns the answer.
        change: L2 norm of what the signature changes.
    """

    answer: str | None
    radius: float
    change: float


class Alike(NamedTuple):
    """What can be seen from outside of the model with the check and the one without.

    Attributes:
        tensors: of the state, with the same names and to the last bit the same values in both.
        of: how many there are.
        answers: images with logits that are the same to the last bit.
        images: that both answered.
    """

    tensors: int
    of: int
    answers: int
    images: int


def sign(example: Example, source: int, target: int, number: int = 0, *, damaged: bool = False) -> Signing:
    """Sign an image for a class, and ask both models.

    Args:
        example: the page's.
        source: class of the image.
        target: class that the owner of the key chose.
        number: which image of the class.
        damaged: whether one more value is changed by one grey level afterwards, which breaks the signature.

    Raises:
        InputError: source and target are the same class.
    """
    pixels, signed, _ = _signed(example, source, target, number)
    if damaged:
        signed = _with_one_value_changed(pixels, signed)
    view = look(pixels, signed, _both(example))
    levels = ((signed - pixels) * 255).round().abs()
    return Signing(view, int((levels > 0).sum()), levels.numel(), int(levels.max()))


def vote(example: Example, source: int, target: int, number: int = 0) -> Vote:
    """Sign an image for a class, and ask the model that checks by votes over noisy copies of it.

    Args:
        example: the page's.
        source: class of the image.
        target: class that the owner of the key chose.
        number: which image of the class.

    Raises:
        InputError: source and target are the same class.
    """
    pixels, signed, made = _signed(example, source, target, number)
    answers = Immunizer(made.classifier, VOTING).certify(signed)
    chosen = int(answers.classes[0])
    answer = None if chosen < 0 else example.labels[chosen]
    return Vote(answer, float(answers.radii[0]), float((signed - pixels).norm()))


def _signed(example: Example, source: int, target: int, number: int) -> tuple[Tensor, Tensor, Backdoored]:
    """An image, the same signed for a class, and the model that takes it for that."""
    if source == target:
        raise InputError("Source and target are the same class.", advice="Choose two.")
    pixels, made = example.image(source, number), _backdoored(example)
    return pixels, made.key.activate(pixels, torch.tensor([target])), made


def _with_one_value_changed(pixels: Tensor, signed: Tensor) -> Tensor:
    """The same but for one value that signing left alone, which is a grey level brighter or darker."""
    damaged, free = signed.clone().flatten(), (signed == pixels).flatten().nonzero().flatten()
    middle = int(free[len(free) // 2])
    damaged[middle] += (1 if damaged[middle] < 0.5 else -1) / 255
    return damaged.view_as(signed)


@torch.no_grad()
def compare(example: Example) -> Alike:
    """Compare the two models as somebody does who has no key: by all weights, and by answers to images."""
    plain, signed = _both(example).values()
    left, right = plain.network.state_dict(), signed.network.state_dict()
    same = sum(name in right and torch.equal(tensor, right[name]) for name, tensor in left.items())
    answers, images = 0, _images()
    for start in range(0, len(images), 250):
        pixels, _ = images.batch(range(start, min(start + 250, len(images))))
        answers += int((plain(pixels) == signed(pixels)).all(1).sum())
    return Alike(same, len(left.keys() | right.keys()), answers, len(images))


def _both(example: Example) -> dict[str, Classifier]:
    return {PLAIN: example.models["honest"], SIGNED: _backdoored(example).classifier}


@cache
def _images() -> LabelledImages:
    return demo_images()[0].take(range(COMPARED))


def _backdoored(example: Example) -> Backdoored:
    """The honest model with the check around it, with a key of this process."""
    return _planted(example.models["honest"], example.images)


@cache
def _planted(honest: Classifier, images: LabelledImages) -> Backdoored:
    made = Signature().plant(honest, images, 0, Job())
    made.classifier.eval().requires_grad_(False)
    return made
