"""A measurement that is kept for a run that goes on, and what is refused in its place."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from phard_hub.errors import OutputError, StateError
from phard_hub.triggers.bank import Parts
from phard_hub.triggers.kept import FILES, keep, kept
from phard_hub.triggers.search import CHEAPEST, Measurement, measure
from tests.small import digit_images, trained_digits


@lru_cache
def measured() -> Measurement:
    return measure(trained_digits(), digit_images(3)[0], replace(CHEAPEST, steps=3))


def read(path: Path) -> Measurement:
    return kept(path, measured().distances.labels, Parts())


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    keep(measured(), tmp_path / "run" / "measured")
    found = read(tmp_path / "run" / "measured")
    assert found.distances == measured().distances
    for name, value in measured().bank.state_dict().items():
        assert torch.equal(found.bank.state_dict()[name], value)


def other_classes(path: Path) -> None:
    record = json.loads((path / FILES.record).read_text())
    (path / FILES.record).write_text(json.dumps(record | {"labels": ["a", "b", "c"]}))


def fewer_triggers(path: Path) -> None:
    save_file(
        {name: value[1:].contiguous() for name, value in load_file(path / FILES.tensors).items()}, path / FILES.tensors
    )


def no_numbers(path: Path) -> None:
    save_file(
        {name: value * torch.nan for name, value in load_file(path / FILES.tensors).items()}, path / FILES.tensors
    )


def link(path: Path) -> None:
    (path / FILES.tensors).unlink()
    (path / FILES.tensors).symlink_to("/etc/passwd")


def fifo(path: Path) -> None:
    (path / FILES.record).unlink()
    os.mkfifo(path / FILES.record)


BROKEN: list[Callable[[Path], object]] = [
    other_classes,
    fewer_triggers,
    no_numbers,
    link,
    fifo,
    lambda path: (path / FILES.record).write_text("{}"),
    lambda path: (path / FILES.tensors).write_bytes(pickle.dumps(print)),
    lambda path: (path / FILES.tensors).unlink(),
]


@pytest.mark.parametrize("change", BROKEN)
def test_what_does_not_fit_is_refused(change: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "run" / "measured"
    keep(measured(), path)
    change(path)
    with pytest.raises(StateError, match=r"cannot be used: .*Delete it to measure again"):
        read(path)


def test_a_folder_that_others_can_write_to_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "measured"
    keep(measured(), path)
    path.chmod(0o777)
    with pytest.raises(OutputError, match="can be written by others"):
        read(path)
