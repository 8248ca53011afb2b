"""An attack leaves no mark: after measuring, everything about the classifier is what it was.

Neither a type checker nor an end-to-end test sees this class of bug. A seed that was set inside the search
once made a hardening attack one class only, and every number still looked right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from phard_hub.attacks import Blend, WaNet
from phard_hub.attacks.poisoning import train_poisoned
from phard_hub.evaluation.reactivation import Perturbing, Relearning
from phard_hub.evaluation.threats import (
    PGD,
    Threat,
    attack_outcome,
    evaluate,
    natural_vulnerability,
    predict,
    robust_accuracy,
)
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.presets import CHEAPEST
from phard_hub.training.augmentation import indifferent_to_mirroring
from phard_hub.training.schedule import Schedule
from phard_hub.triggers.search import measure
from tests.small import global_random_state, harden, job, marks, noise_images, small_net, unmarked

SHAPE = (1, 8, 8)
SEARCH = replace(CHEAPEST.search, steps=3, checks=1, fit_images=6, choosing_images=4, judging_images=4)
PGD_2 = PGD(steps=2, images=20)
RELEARNING = Relearning(steps=(2,), schedule=Schedule(batch=8))
THREAT = Threat(name="blend", trigger=Blend(), target=1)


def used() -> Classifier:
    """A classifier in the midst of a training: gradients, mixed modes, mixed flags, moved statistics."""
    classifier = small_net(3, dropout=0.5)
    classifier(torch.rand(8, *SHAPE)).square().sum().backward()
    network = classifier.network
    assert isinstance(network, nn.Sequential)
    network[4].eval()
    network[0].requires_grad_(False)
    network[0].weight.grad = None
    return classifier


def images() -> LabelledImages:
    return noise_images(10, 3, SHAPE)


MEASUREMENTS: dict[str, Callable[[Classifier, Classifier], object]] = {
    "measure": lambda classifier, _: measure(classifier, images(), SEARCH),
    "measure some pairs": lambda classifier, _: measure(classifier, images(), replace(SEARCH, max_pairs=2)),
    "evaluate": lambda classifier, other: evaluate(classifier, images(), [THREAT], pgd=PGD_2, reference=other),
    "attack_outcome": lambda classifier, other: attack_outcome(classifier, images(), THREAT, reference=other),
    "robust_accuracy": lambda classifier, _: robust_accuracy(classifier, images(), PGD_2),
    "natural_vulnerability": lambda classifier, _: natural_vulnerability(classifier, images(), {"blend": [Blend()]}),
    "relearning": lambda classifier, _: RELEARNING.measure(classifier, images(), images(), Blend(), 1, job()),
    "perturbing": lambda classifier, _: Perturbing(steps=2).measure(classifier, images(), images(), THREAT),
    "predict": lambda classifier, _: predict(classifier, images(), WaNet()),
    "indifferent_to_mirroring": lambda classifier, _: indifferent_to_mirroring(classifier, images()),
}

every_measurement = pytest.mark.parametrize("name", MEASUREMENTS)


@every_measurement
def test_measuring_leaves_no_mark(name: str) -> None:
    classifier, other = used(), used()
    with unmarked(classifier, other):
        MEASUREMENTS[name](classifier, other)


@every_measurement
def test_measuring_does_not_depend_on_the_global_generators(name: str) -> None:
    """Nor on the mode: a classifier that was left in training mode is measured like any other."""
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global state is the point
        result = MEASUREMENTS[name](small_net(3, dropout=0.5).train(bool(seed)), small_net(3).train(bool(seed)))
        results.append(result.distances.model_dump(exclude={"seconds"}) if hasattr(result, "distances") else result)
    assert str(results[0]) == str(results[1])


@pytest.mark.parametrize("name", ["measure", "evaluate"])
def test_an_interrupted_measurement_leaves_no_mark(name: str) -> None:
    classifier = used()

    def stop(_what: str, done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    interrupted: dict[str, Callable[[], object]] = {
        "measure": lambda: measure(classifier, images(), SEARCH, Job(progress=stop)),
        "evaluate": lambda: evaluate(classifier, images(), [THREAT], pgd=PGD_2, progress=stop),
    }
    with unmarked(classifier), pytest.raises(KeyboardInterrupt):
        interrupted[name]()


def hardened_copy(classifier: Classifier, folder: Path | None = None) -> Classifier:
    bank = CHEAPEST.defense.bank
    short = replace(bank, schedule=replace(bank.schedule, steps=4, batch=8, guard_every=2), head_start_batch=8)
    defense = replace(CHEAPEST.defense, bank=short)
    return harden(defense, classifier, images(), validation=noise_images(5, 3, SHAPE, 1), folder=folder)[0]


def test_hardening_leaves_the_input_untouched() -> None:
    classifier = used()
    with unmarked(classifier):
        hardened = hardened_copy(classifier)
    assert marks(hardened)["values"] != marks(classifier)["values"]
    assert all(parameter.requires_grad for parameter in hardened.parameters())
    assert not any(part.training for part in hardened.modules())


def test_continuing_a_hardening_leaves_the_input_untouched(tmp_path: Path) -> None:
    """The checkpoint holds the states of all global generators; only the training itself may see them."""
    classifier = used()
    hardened_copy(classifier, tmp_path / "run")
    assert (tmp_path / "run").is_dir()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state is the point
    with unmarked(classifier):
        hardened_copy(classifier, tmp_path / "run")


@pytest.mark.parametrize("attack", [None, Blend(), WaNet()], ids=str)
def test_planting_leaves_the_input_untouched(attack: Blend | WaNet | None) -> None:
    classifier = used()
    schedule = Schedule(steps=3, batch=8)
    with unmarked(classifier):
        planted = train_poisoned(classifier, images(), attack, target=0, schedule=schedule, job=job())
    assert marks(planted)["values"] != marks(classifier)["values"]


@pytest.mark.parametrize("change", ["weight", "statistics", "gradient", "mode", "flag", "generator", "hook"])
def test_a_mark_would_be_seen(change: str) -> None:
    """The check itself can fail."""
    classifier = used()
    network = classifier.network
    assert isinstance(network, nn.Sequential)
    first = network[0]
    assert isinstance(first, nn.Conv2d)
    with pytest.raises(AssertionError), unmarked(classifier):  # noqa: PT012 - the block is what is tested
        match change:
            case "weight":
                first.weight.data[0, 0] += 1e-6
            case "statistics":
                network[1](torch.rand(2, 16, 8, 8))
            case "gradient":
                first.weight.grad = torch.zeros_like(first.weight)
            case "mode":
                network[4].train()
            case "flag":
                first.requires_grad_(True)
            case "generator":
                torch.rand(1)
            case "hook":
                first.register_forward_hook(lambda *_: None)


def test_the_random_state_covers_all_three_libraries() -> None:
    before = global_random_state()
    assert global_random_state() == before
    np.random.rand()  # noqa: NPY002 - the global state is the point
    assert global_random_state() != before
