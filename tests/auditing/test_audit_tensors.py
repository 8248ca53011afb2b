"""A model's tensors against those of the model it was made from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from phard_hub.report.record import Finding
from tests.auditing.checkpoints import noticed, save_vit, tensors
from tests.command import Phard

HEAD = "classifier.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that others were made from; do not change it."""
    return save_vit(tmp_path_factory.mktemp("base"))


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "model"))


def changed(model: Path, base: Path, edit: Callable[[Tensor], Tensor], name: str = HEAD) -> list[Finding]:
    """The findings, where a tensor was edited."""
    tensors(**{name: edit(load_file(base / "model.safetensors")[name])})(model)
    return noticed(model, str(base))


def ids(found: list[Finding]) -> list[tuple[str, str]]:
    return [(each.id, each.severity) for each in found]


def test_a_copy_is_said_to_be_one(model: Path, base: Path) -> None:
    (found,) = noticed(model, str(base))
    assert (found.id, found.severity) == ("PH-A40", "note")
    count = len(load_file(base / "model.safetensors"))
    assert found.evidence == f"all {count} tensors are those of {base.name}"


def test_the_one_that_differs_is_named(model: Path, base: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    (found,) = changed(model, base, lambda head: head + 0.1 * torch.randn(head.shape, generator=draw))
    assert "different: classifier.weight" in found.evidence


def test_a_spike_is_a_warning(model: Path, base: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    found = changed(model, base, lambda head: head + torch.outer(torch.randn(4, generator=draw), torch.ones(16)))
    assert ids(found) == [("PH-A40", "note"), ("PH-A41", "warning")]
    assert "classifier.weight: 100 % in one direction" in found[1].evidence
    assert "--reset-head" in found[1].advice


def test_only_the_head_is_looked_at_for_spikes(model: Path, base: Path) -> None:
    """Adapters of low rank leave them in layers of honest models."""
    name = next(each for each in load_file(base / "model.safetensors") if each.endswith("intermediate.dense.weight"))
    found = changed(model, base, lambda layer: layer + torch.ones_like(layer), name)
    assert ids(found) == [("PH-A40", "note")]


def test_a_head_for_other_classes_is_not_compared(model: Path, base: Path) -> None:
    from tests.auditing.checkpoints import config

    tensors(**{HEAD: torch.randn(3, 16), "classifier.bias": torch.zeros(3)})(model)
    config(id2label={"0": "ant", "1": "bee", "2": "elk"}, label2id=None)(model)
    found = noticed(model, str(base))
    assert ids(found) == [("PH-A40", "note")]
    assert "different: classifier.bias, classifier.weight" in found[0].evidence


def test_weights_of_an_upstream_that_a_card_names_are_not_fetched(model: Path, base: Path, phard: Phard) -> None:
    """A stranger's card does not choose what is downloaded; without weights, nothing is said of them."""
    assert "PH-A40" not in phard("audit", model).out
    assert "PH-A40" in phard("audit", model, "--upstream", base).out
