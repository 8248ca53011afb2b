"""A hand-made report with four classes, before and after hardening, and the files of its release."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import numpy as np

from phard_hub.report.distances import ClassDistances, PairDistance, Rate
from phard_hub.report.record import (
    AttackOutcome,
    Environment,
    Evaluation,
    Finding,
    Hardening,
    Phase,
    Report,
    Source,
    State,
    TrainingPoint,
)
from phard_hub.report.statistics import rate

LABELS = ("cat", "dog", "frog", "horse")
SHAPE = (3, 32, 32)
GREY = 255.0 / (3 * 32 * 32) ** 0.5
UNREACHED = {(0, 3)}
RELEASE_FILES = frozenset(
    {
        "README.md",
        "config.json",
        "model.safetensors",
        "phard_report.json",
        "plots/distances.png",
        "plots/success.png",
        "plots/training.png",
        "plots/triggers.png",
        "preprocessor_config.json",
    }
)
"""What a release of a hardened model holds, if the model has no licence file."""


def make_rate(value: float, n: int = 1000) -> Rate:
    return rate(round(value * n), n)


def make_pair(source: int | None, target: int, distance: float | None) -> PairDistance:
    return PairDistance(
        source=source,
        target=target,
        reached=distance is not None,
        distance=distance,
        low=None if distance is None else 0.95 * distance,
        high=None if distance is None else 1.05 * distance,
        rms=None if distance is None else distance * GREY,
        success=make_rate(0.4 if distance is None else 0.95, 100),
        at=() if source is not None else tuple(make_rate(share, 100) for share in (0.1, 0.4, 0.9, 0.97)),
    )


def make_distances(
    scale: float = 1.0,
    *,
    labels: Sequence[str] = LABELS,
    unreached: Sequence[tuple[int, int]] | set[tuple[int, int]] = (),
    seed: int = 0,
) -> ClassDistances:
    """Distances of about 2 x scale (L2), fixed by the seed."""
    generator = np.random.default_rng(seed)
    pairs = tuple(
        make_pair(s, t, None if (s, t) in unreached else scale * float(generator.uniform(1.2, 2.8)))
        for s, t in permutations(range(len(labels)), 2)
    )
    targets = range(len(labels)) if len(labels) > 2 else ()
    universal = tuple(make_pair(None, t, scale * float(generator.uniform(2.5, 4))) for t in targets)
    found = [pair.distance for pair in pairs if pair.distance is not None]
    mean = float(np.mean(found)) if found else None
    return ClassDistances(
        labels=tuple(labels),
        pairs=pairs,
        universal=universal,
        kinds={"colour": tuple(make_pair(None, t, scale * (4 + 0.1 * t)) for t in range(len(labels)))},
        success_bound=0.9,
        image_shape=SHAPE,
        mean=mean,
        low=None if mean is None else 0.9 * mean,
        high=None if mean is None else 1.1 * mean,
        settings={"steps": 300, "seed": 0},
        sample_gradients=100_000,
        sample_forwards=20_000,
        seconds=12.5,
    )


def make_state(accuracy: float, robust: float, success: float, distances: ClassDistances, sha: str) -> State:
    attack = AttackOutcome(
        name="blend", target=1, success=make_rate(success), recovered=make_rate(1 - success), size=3.0
    )
    evaluation = Evaluation(
        accuracy=make_rate(accuracy),
        robust_accuracy=make_rate(robust),
        robust_attack="PGD-20, Linf 2/255",
        attacks=(attack,),
    )
    return State(weights_sha256=sha, evaluation=evaluation, distances=distances)


def make_hardening(*, forgotten: bool | None = True) -> Hardening:
    curve = tuple(
        TrainingPoint(
            step=step,
            loss=2.0 / (1 + step / 40),
            learning_rate=0.01 * (1 - step / 200),
            bank_success=0.9 / (1 + step / 30),
            bank_distance=2.0 + step / 50,
            validation_accuracy=0.9 if step % 40 == 0 else None,
        )
        for step in range(0, 200, 10)
    )
    bank = Phase(
        defense="adversarial",
        settings={"schedule": {"learning_rate": 0.01}},
        curve=curve,
        sample_gradients=200_000,
        sample_forwards=100_000,
        seconds=83.0,
    )
    forgetting = Phase(
        defense="feature-shift",
        settings={"weight": 0.2},
        forgets=True,
        kept=bool(forgotten),
        sample_gradients=50_000,
        sample_forwards=0,
        seconds=10.0,
    )
    first = () if forgotten is None else (forgetting,)
    return Hardening(
        defense="pervasive",
        settings={"epochs": 5, "schedule": {"learning_rate": 0.01}},
        seed=0,
        images=2500,
        phases=(*first, bank),
    )


NOTHING_DONE = Hardening(defense="pervasive", settings={}, seed=0, images=0, phases=())


def make_report(**changes: Any) -> Report:
    """A report that passes the default policy; ``changes`` replaces fields of it."""
    values: dict[str, Any] = {
        "schema_version": 3,
        "created": datetime(2026, 11, 21, 12, tzinfo=UTC),
        "source": Source(repo="someone/resnet-tiny", commit="0123456789abcdef" * 2 + "01234567", license="apache-2.0"),
        "dataset": "uoft-cs/cifar10",
        "findings": (
            Finding(id="no-license", severity="note", file="README.md", evidence="no license", advice="Ask."),
        ),
        "before": make_state(0.92, 0.30, 0.99, make_distances(1.0), "a" * 64),
        "after": make_state(0.915, 0.41, 0.0, make_distances(2.2, unreached=UNREACHED), "b" * 64),
        "hardening": make_hardening(),
        "environment": Environment(versions={"phard-hub": "0.1.0", "torch": "2.13.0"}, device="cpu"),
        "limits": ("A backdoor without a pervasive trigger is not measured.",),
    }
    if changes.get("after", ...) is None:
        values["hardening"] = None
    return Report(**{**values, **changes})


def change_state(state: State, **changes: Any) -> State:
    """A state with fields of its evaluation or its distances replaced."""
    evaluation = {key: value for key, value in changes.items() if key in Evaluation.model_fields}
    if evaluation.get("robust_accuracy", ...) is None:
        evaluation["robust_attack"] = ""
    rest = {key: value for key, value in changes.items() if key in State.model_fields}
    return state.model_copy(update={"evaluation": state.evaluation.model_copy(update=evaluation), **rest})
