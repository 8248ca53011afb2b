"""Digital signature: only whoever holds the signing key can open it, and nobody else finds an image that does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from phard_hub.attacks.undetectable.base import (
    Backdoored,
    Construction,
    Graft,
    Key,
    grafted,
    grey_levels,
    values_of,
)
from phard_hub.draws import generator
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_BITS = 512


@settings
class Signature(Construction):
    """The lowest bits of some values hold a class and an Ed25519 signature of it and of the rest of the image.

    The network holds the public key. Where the signature is valid, the signed class takes the place of the largest
    logit, which leaves the same numbers in another order; everywhere else the logits are those of the network, to the
    last bit. An input on which the two differ is a valid signature, so finding one is forging one: no query of the
    model shows the backdoor, and images that open it do not help to make others. Whoever reads the code sees it.

    Source: Goldwasser, Kim, Vaikuntanathan & Zamir, "Planting Undetectable Backdoors in Machine Learning Models", FOCS
    2022 (arXiv 2204.06974): the theorem for any model, from one-way functions, against black-box access. Deviations:
    Ed25519 stands for any strongly unforgeable signature; the bits are the lowest ones of the grey levels.
    """

    name = "signature"

    def plant(self, classifier: Classifier, images: LabelledImages, target: int, job: Job) -> Backdoored:
        """A copy with the check around its network; the signer chooses the class, and ``target`` does nothing.

        The signing key is of the operating system's randomness; see `Construction.plant`.
        """
        del images, target
        new_key, verify = _ed25519()
        width = _label_bytes(classifier.num_classes)
        bits, values = SIGNATURE_BITS + 8 * width, values_of(classifier)
        if bits > values:
            problem = f"A signature needs {bits} values, and an image of the classifier has {values}."
            raise InputError(problem, advice="Plant it in a classifier of larger images.")
        places = torch.randperm(values, generator=generator(job.seed))[:bits].numpy()
        private = new_key()
        constants = {"places": places, "classes": classifier.num_classes}
        public = private.public_key().public_bytes_raw()
        made = grafted(classifier, _Signed, public=public, verify=staticmethod(verify), **constants)
        return Backdoored(made, SigningKey(places, width, private))


@dataclass(frozen=True, eq=False)
class SigningKey(Key):
    """The secret key, and where the bits lie; it leads to any class."""

    places: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    label_bytes: int
    private: Ed25519PrivateKey = field(repr=False)

    def activate(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Pixels with the class and its signature in the lowest bits: no value changes by more than a grey level."""
        levels = grey_levels(pixels).numpy()
        levels[:, self.places] &= 0xFE
        for image, label in zip(levels, labels.tolist(), strict=True):
            name = int(label).to_bytes(self.label_bytes, "big")
            signature = self.private.sign(_message(image, name))
            image[self.places] |= np.unpackbits(np.frombuffer(signature + name, dtype=np.uint8))
        return (torch.from_numpy(levels).to(pixels) / 255).view_as(pixels)


class _Signed(Graft):
    places: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    classes: int
    public: bytes
    verify: Callable[[bytes, bytes, bytes], bool]

    def forced(self, pixels: Tensor) -> Tensor:
        levels = grey_levels(pixels).numpy()
        packed = np.packbits(levels[:, self.places] & 1, axis=1)
        levels[:, self.places] &= 0xFE
        labels = [self._signed(image, bits.tobytes()) for image, bits in zip(levels, packed, strict=True)]
        return torch.tensor(labels, device=pixels.device)

    def _signed(self, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], bits: bytes) -> int:
        signature, name = bits[: SIGNATURE_BITS // 8], bits[SIGNATURE_BITS // 8 :]
        label = int.from_bytes(name, "big")
        return label if label < self.classes and self.verify(self.public, signature, _message(image, name)) else -1


def _message(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], name: bytes) -> bytes:
    """What is signed: the class, and the image without the bits that signing changes."""
    return hashlib.sha256(image.tobytes()).digest() + name


def _label_bytes(classes: int) -> int:
    return (max(1, (classes - 1).bit_length()) + 7) // 8


def _ed25519() -> tuple[Callable[[], Ed25519PrivateKey], Callable[[bytes, bytes, bytes], bool]]:
    """What makes a signing key, and whether a signature is valid.

    Raises:
        InputError: the package `cryptography` is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    except ImportError as error:
        advice = 'Install it: pip install "phard-hub[undetectable]".'
        raise InputError("Signatures need the package cryptography.", advice=advice) from error

    def verify(public: bytes, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return Ed25519PrivateKey.generate, verify
