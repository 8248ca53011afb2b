"""Attacks with their keys, learned in a moment, and pixels to stamp."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from phard_hub.attacks import ATTACKS, Attack
from phard_hub.attacks.learned import LearnedAttack
from phard_hub.images import LabelledImages
from tests.small import noise_images, small_net

TARGET = 1


def draw(count: int, shape: tuple[int, int, int]) -> Tensor:
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    pixels[:, :, 0, 0], pixels[:, :, -1, -1] = 0, 1
    return pixels


def noise(channels: int) -> LabelledImages:
    return noise_images(8, 3, (channels, 16, 16))


def make(name: str, **fields: Any) -> Attack:
    """An attack of the table, without its key; one that learns does so in no time."""
    attack = ATTACKS[name]()
    quick = {"steps": 2, "batch": 8} if isinstance(attack, LearnedAttack) else {}
    return ATTACKS[name](**(quick | fields))


@lru_cache
def fitted(name: str, channels: int = 3, seed: int = 0) -> Attack:
    """An attack of the table with its key, for images of any size."""
    return make(name, seed=seed).fit(small_net(3, channels=channels, size=16), noise(channels), TARGET)
