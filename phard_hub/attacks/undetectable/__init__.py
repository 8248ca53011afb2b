"""Backdoors of which no test can show the absence, built to find out what does help against them."""

from phard_hub.attacks.undetectable.architectural import Architectural
from phard_hub.attacks.undetectable.base import Backdoored, Construction, Key
from phard_hub.attacks.undetectable.checksum import Checksum
from phard_hub.attacks.undetectable.fourier import FourierFeatures
from phard_hub.attacks.undetectable.persistence import Persistent
from phard_hub.attacks.undetectable.relu import RandomRelu
from phard_hub.attacks.undetectable.signature import Signature

CONSTRUCTIONS: dict[str, type[Construction]] = {
    construction.name: construction
    for construction in (Checksum, Signature, Persistent, FourierFeatures, RandomRelu, Architectural)
}
"""All constructions by name; each needs code of its own, so it lives in a module and not in files of weights."""

__all__ = [
    "CONSTRUCTIONS",
    "Architectural",
    "Backdoored",
    "Checksum",
    "Construction",
    "FourierFeatures",
    "Key",
    "Persistent",
    "RandomRelu",
    "Signature",
]
