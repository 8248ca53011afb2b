"""Weights that are finite, and so large that what they compute is not: in one line, and never outside of the memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from phard_hub.errors import CheckpointError
from phard_hub.evaluation.threats import predict
from phard_hub.triggers.bank import Bank
from phard_hub.triggers.search import CHEAPEST, measure
from tests.border.run import watched
from tests.small import noise_images, small_net


@pytest.mark.parametrize("factor", [1e10, 1e20, 3e38])
def test_measuring_enormous_weights(factor: float, tiny_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """In a process of its own, which such weights once ended by a segmentation fault."""
    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    enlarged = {
        name: (value.double() * factor).clamp(-3e38, 3e38).to(value.dtype) if value.is_floating_point() else value
        for name, value in load_file(model / "model.safetensors").items()
    }
    save_file(enlarged, model / "model.safetensors", metadata={"format": "pt"})
    done, _ = watched("measure", model, "--images", images, "--preset", "cheapest", folders=(model, images))
    assert done.code == 2
    assert "its logits are not finite" in done.complaint


class Blind(torch.nn.Module):
    """Logits that are finite for a blank image, and overflow for all others."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3, 64), 3e38))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - pixels[:, :1, :1, :1]).abs().flatten(1) @ self.weight.T


def test_a_model_that_overflows_where_it_is_measured() -> None:
    classifier = small_net(3)
    classifier.network = Blind()
    images = noise_images(20, 3, (1, 8, 8))
    found = measure(classifier, images, CHEAPEST)
    assert all(parameter.isfinite().all() for parameter in found.bank.parameters())
    with pytest.raises(CheckpointError, match="not finite"):
        predict(classifier, images)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38, -3e38])
@pytest.mark.parametrize("name", ["flow", "knots", "matrix", "values"])
def test_triggers_that_are_not_finite_stay_in_their_memory(name: str, value: float) -> None:
    bank = Bank(2, (3, 32, 32))
    with torch.no_grad():
        dict(bank.named_parameters())[name].fill_(value)
    pixels = torch.rand(8, 3, 32, 32, requires_grad=True)
    for _ in range(3):
        bank(pixels, torch.arange(8) % 2).sum().backward()
