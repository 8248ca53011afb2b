"""Measuring is divided over processes: to the same numbers, with the same errors, and each process does its share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from phard_hub.attacks import Blend
from phard_hub.defenses import Smoothing
from phard_hub.defenses.immunizer import measure_votes
from phard_hub.errors import CheckpointError, PhardError
from phard_hub.evaluation.autoattack import AutoAttack
from phard_hub.evaluation.sizes import trigger_size
from phard_hub.evaluation.threats import PGD, Threat, evaluate, natural_vulnerability
from phard_hub.job import pieces_of, shared
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.search import CHEAPEST, measure
from tests.small import digit_images, guard, job, trained_digits


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 100])
@pytest.mark.parametrize("at_once", [1, 10, 1000])
def test_all_is_done_once_and_comes_in_order(count: int, at_once: int) -> None:
    numbers = 3 * torch.arange(count)
    seen: list[int] = []

    def act(piece: Tensor) -> list[Tensor]:
        assert 1 <= len(piece) <= at_once
        seen.extend(piece.tolist())
        return [piece, piece.double()[:, None] / 3]

    one, other = shared(act, numbers, at_once)
    assert seen == one.tolist() == numbers.tolist()
    assert other.flatten().tolist() == list(range(count))
    assert len(pieces_of(numbers, at_once)) >= min(6, count)


def test_dealt_pieces_have_as_much_of_each_sort() -> None:
    numbers = torch.arange(30)  # ten of each of three sorts
    pieces = pieces_of(numbers, 100, dealt=True).values()
    assert sorted(number for piece in pieces for number in piece.tolist()) == numbers.tolist()
    assert all(torch.bincount(piece // 10).float().std() < 1 for piece in pieces)


SEARCH = replace(CHEAPEST, steps=3, batch=4, max_pairs=2, kinds=("warp", "u-net"), choosing_images=8, judging_images=8)


@cache
def measured() -> dict[str, Any]:
    """Everything that is measured of one classifier, and how many images this process sent through it."""
    classifier, (images, test) = trained_digits(), digit_images(3)
    seen = [0]

    def count(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[0] += len(given[0])

    classifier.register_forward_pre_hook(count)
    task, blend = replace(job(), seed=3), Blend()
    watched = guard(classifier, test)
    assert watched is not None
    found = {
        "evaluation": evaluate(classifier, test, [Threat(name="b", trigger=blend, target=1)], pgd=PGD(steps=3), seed=3),
        "natural": natural_vulnerability(classifier, test, {"blend": [blend, Blend(seed=1)]})[0],
        "votes": measure_votes(classifier, test, Smoothing(votes=20, guesses=5, shift=1, images=70), task),
        "size": trigger_size(blend, test),
        "distances": measure(classifier, images, SEARCH, task).distances,
    }
    numbers: dict[str, Any] = {name: value.model_dump(exclude={"seconds"}) for name, value in found.items()}
    autoencoder = train_autoencoder(images, steps=3)
    numbers["autoencoder"] = {name: value.tolist() for name, value in autoencoder.state_dict().items()}
    numbers["autoattack"] = AutoAttack(epsilon=0.1, images=6, queries=1).accuracy(classifier, test).model_dump()
    numbers["guard"] = watched.look(classifier)
    return {"numbers": numbers, "images": seen[0]}


def report(folder: str) -> None:
    """What each process does: the parent compares what they leave in the folder."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    rank = Accelerator(cpu=True).process_index
    measured.cache_clear()
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(measured()))


@pytest.mark.parametrize("processes", [2, 3])
def test_many_processes_measure_what_one_does_and_each_does_its_share(processes: int, tmp_path: Path) -> None:
    pytest.importorskip("pyautoattack", reason="the extra `autoattack` is not installed")
    alone = json.loads(json.dumps(measured()))
    debug_launcher(report, args=(str(tmp_path),), num_processes=processes)
    for rank in range(processes):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["numbers"] == alone["numbers"]
        assert found["images"] < 1.3 * alone["images"] / processes


def failing(folder: str) -> None:
    """One process alone meets an error."""
    AcceleratorState._reset_state(reset_partial_state=True)
    rank = Accelerator(cpu=True).process_index

    def act(piece: Tensor) -> Sequence[Tensor]:
        if 5 in piece:
            raise CheckpointError("The fifth is broken.", advice="Take another.")
        return [piece]

    try:
        shared(act, torch.arange(12), 2)
        ended = "well"
    except PhardError as error:
        ended = f"{type(error).__name__}: {error.problem} {error.advice}"
    (Path(folder) / f"rank{rank}.txt").write_text(ended)


def test_an_error_of_one_process_is_one_of_all(tmp_path: Path) -> None:
    debug_launcher(failing, args=(str(tmp_path),), num_processes=2)
    for rank in range(2):
        assert (tmp_path / f"rank{rank}.txt").read_text() == "CheckpointError: The fifth is broken. Take another."
