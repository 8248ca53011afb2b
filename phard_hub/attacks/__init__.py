"""Backdoors planted on purpose, to measure what hardening withstands: one file per paper."""

from collections.abc import Callable
from functools import partial

from phard_hub.attacks.adapblend import AdapBlend
from phard_hub.attacks.anchored import Anchored
from phard_hub.attacks.base import Attack, Planted
from phard_hub.attacks.blend import Blend
from phard_hub.attacks.bpp import Bpp
from phard_hub.attacks.dfst import Dfst
from phard_hub.attacks.filters import Filter
from phard_hub.attacks.inputaware import InputAware
from phard_hub.attacks.issba import Issba
from phard_hub.attacks.latentflat import LatentFlat
from phard_hub.attacks.lira import Lira
from phard_hub.attacks.outside import Jpeg, Median, Palette
from phard_hub.attacks.patch import BadNets, TrojanWatermark
from phard_hub.attacks.poisoning import Planting
from phard_hub.attacks.refool import Refool
from phard_hub.attacks.sbl import Sbl
from phard_hub.attacks.sig import Sig
from phard_hub.attacks.undetectable.sparsehead import SparseHead
from phard_hub.attacks.wanet import WaNet

ATTACKS: dict[str, Callable[..., Attack]] = {
    "wanet": WaNet,
    "sig": Sig,
    "blend": Blend,
    "refool-sharp": partial(Refool, mode="sharp"),
    "refool-blurred": partial(Refool, mode="blurred"),
    "refool-ghost": partial(Refool, mode="ghost"),
    "nashville": partial(Filter, look="nashville"),
    "kelvin": partial(Filter, look="kelvin"),
    "1977": partial(Filter, look="1977"),
    "toaster": partial(Filter, look="toaster"),
    "dfst": Dfst,
    "issba": Issba,
    "bpp": Bpp,
    "lira": Lira,
    "input-aware": InputAware,
    "adap-blend": AdapBlend,
    "anchored": Anchored,
    "latent-flat": LatentFlat,
    "sbl": Sbl,
    "jpeg": Jpeg,
    "palette": Palette,
    "median": Median,
    "sparse-head": SparseHead,
    "badnets": BadNets,
    "trojan-watermark": TrojanWatermark,
}
"""All attacks by name; call one, with fields to change, to get an `Attack`. The last two are local, not pervasive."""

__all__ = [
    "ATTACKS",
    "AdapBlend",
    "Anchored",
    "Attack",
    "BadNets",
    "Blend",
    "Bpp",
    "Dfst",
    "Filter",
    "InputAware",
    "Issba",
    "Jpeg",
    "LatentFlat",
    "Lira",
    "Median",
    "Palette",
    "Planted",
    "Planting",
    "Refool",
    "Sbl",
    "Sig",
    "SparseHead",
    "TrojanWatermark",
    "WaNet",
]
