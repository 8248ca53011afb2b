"""Backdoors planted on purpose, to measure what hardening withstands: one file per paper."""

from phard_hub.attacks.base import Attack
from phard_hub.attacks.blend import Blend
from phard_hub.attacks.wanet import WaNet

ATTACKS: dict[str, type[Blend] | type[WaNet]] = {"blend": Blend, "wanet": WaNet}

__all__ = ["ATTACKS", "Attack", "Blend", "WaNet"]
