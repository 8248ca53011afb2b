"""Every defense makes the same model in two processes as in one, and of batches that go through it in parts."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from torch import nn

from phard_hub.hardware import computing
from phard_hub.models.classifier import Classifier
from phard_hub.training.schedule import Schedule
from tests.defenses.test_contract import NAMES, NEEDS, classifiers, data, defense, usual
from tests.plain import Plain
from tests.small import harden, small_net, trained


def made_by_all(folder: str) -> None:
    """What each process does: the parent compares what the first leaves in the folder."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    for name in NAMES:
        made, record = harden(defense(name), classifiers()["convolutional"], data()[0], seed=1, accelerator=accelerator)
        kept = {"weights": made.state_dict(), "cost": [record.sample_gradients, record.sample_forwards]}
        torch.save(kept, Path(folder) / f"{name}-{accelerator.process_index}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classifiers()
    found = tmp_path_factory.mktemp("together")
    debug_launcher(made_by_all, args=(str(found),), num_processes=2)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_make_the_same_model_as_one(name: str, folder: Path) -> None:
    first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
    alone, record = usual(name, "convolutional")
    assert first["cost"] == second["cost"] == [record.sample_gradients, record.sample_forwards]
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(first["weights"][key], value, rtol=0, atol=1e-5)
        assert torch.equal(first["weights"][key], second["weights"][key])


def in_groups(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


@cache
def without_batch_norm() -> Classifier:
    schedule = Schedule(steps=60, batch=32, learning_rate=0.05, shift=0.0, flip=False)
    return trained(small_net(3, norm=in_groups), data()[0], lambda *_: Plain(), schedule).classifier


@pytest.mark.parametrize("name", [name for name in NAMES if NEEDS.get(name) != "batch norm"])
def test_batches_in_parts_make_the_same_model(name: str) -> None:
    whole, record = harden(defense(name), without_batch_norm(), data()[0], seed=1)
    with computing(at_once=5):
        parts, same = harden(defense(name), without_batch_norm(), data()[0], seed=1)
    assert record.sample_gradients == same.sample_gradients
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=0, atol=1e-5)
