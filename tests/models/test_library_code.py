"""What is put into or onto a network from elsewhere is seen; networks of the libraries pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phard_hub.errors import CheckpointError
from phard_hub.models.library_code import require_library_code


class Foreign(nn.Module):
    """A module that no library has."""


def evil(pixels: Tensor, *_: object) -> Tensor:
    return pixels


def override(name: str, code: Any) -> Callable[[nn.Module], object]:
    return lambda layer: setattr(layer, name, code)


@pytest.fixture
def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.GELU()))


def test_modules_of_torch(network: nn.Module) -> None:
    require_library_code(network)


def test_a_foreign_class(network: nn.Sequential) -> None:
    network.get_submodule("1").add_module("2", Foreign())
    with pytest.raises(CheckpointError, match=r"1\.2 holds the class tests\.models\.test_library_code\.Foreign"):
        require_library_code(network)


def test_a_foreign_network() -> None:
    with pytest.raises(CheckpointError, match="The network holds the class"):
        require_library_code(Foreign())


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        (r"the method tests\.models\.test_library_code\.forward", override("forward", evil)),
        (r"the method functools\.forward", override("forward", functools.partial(evil))),
        (r"the method tests\.models\.test_library_code\._call_impl", override("_call_impl", evil)),
        (r"the method builtins\.extra_repr", override("extra_repr", print)),
        ("a hook", lambda layer: layer.register_forward_hook(evil)),
        ("a hook", lambda layer: layer.register_forward_pre_hook(evil)),
        ("a hook", lambda layer: layer.register_full_backward_hook(evil)),
    ],
)
def test_what_is_put_onto_a_layer(network: nn.Sequential, expected: str, change: Callable[[nn.Module], object]) -> None:
    change(network.get_submodule("1.0"))
    with pytest.raises(CheckpointError, match=rf"1\.0 holds {expected}"):
        require_library_code(network)


def test_a_network_of_transformers(tiny_checkpoint: Path) -> None:
    from transformers import AutoModelForImageClassification

    require_library_code(AutoModelForImageClassification.from_pretrained(tiny_checkpoint))


@pytest.mark.parametrize("architecture", ["test_vit", "fasternet_t0"])  # the second puts its own forward onto layers
def test_a_network_of_timm(architecture: str) -> None:
    timm = pytest.importorskip("timm", reason="NO TIMM: install phard-hub[timm]")
    with torch.device("meta"):
        require_library_code(timm.create_model(architecture))
