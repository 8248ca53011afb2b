"""What holds for every defense: one table over all of `DEFENSES`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from phard_hub.defenses import DEFENSES, RIVALS, AdversarialTraining, Defense, FeatureShift, SharpnessAware
from phard_hub.defenses.trained import Scheduled
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Hardening
from phard_hub.training.schedule import Schedule
from phard_hub.triggers.bank import Parts
from tests.small import (
    PowerCutError,
    as_classifier,
    digit_images,
    harden,
    same_weights,
    trained_digits,
    unmarked,
)

STEPS = 6
NAMES = sorted(DEFENSES)


def quick(value: Any) -> Any:
    """The same settings, for a moment."""
    if isinstance(value, Schedule):
        return replace(value, steps=STEPS, batch=16, guard_every=2, save_every=4, shift=0.125, warm_up=0.2)
    if not is_dataclass(value) or isinstance(value, type | Parts):
        return value
    few = {"head_start": 2, "head_start_batch": 16, "pushed": 0.5}
    few |= {"inner_steps": 2, "per_class": 4, "searched_on": 16, "anomaly": 0.0, "bound": 0.0, "largest": 1.0}
    changes = {each.name: few.get(each.name, quick(getattr(value, each.name))) for each in fields(value)}
    return replace(value, **changes)


def defense(name: str) -> Defense:
    made = quick(DEFENSES[name]())
    assert isinstance(made, Defense)
    return made


class Transformer(nn.Module):
    """A vision transformer of one layer, with dropout, for 8 x 8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)
        logits: torch.Tensor = self.head(self.layer(tokens).mean(1))
        return logits


def classifiers() -> dict[str, Classifier]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = as_classifier(Transformer(), 3, (1, 8, 8))
    return {"convolutional": trained_digits(3), "transformer": transformer}


def data() -> tuple[LabelledImages, LabelledImages]:
    return digit_images(3)


@lru_cache
def usual(name: str, kind: str) -> tuple[Classifier, Hardening]:
    """What a defense makes with seed 1; do not change it."""
    return harden(defense(name), classifiers()[kind], data()[0], seed=1)


def updates(name: str) -> bool:
    """Whether a defense trains the model, and does not change it in another way."""
    made = DEFENSES[name]()
    return made.lasting(7) != made


NEEDS = {"anp": "batch norm", "nad": "a convolutional network"}
"""What a defense cannot do without, and says so."""


def kind_for(name: str) -> str:
    return "convolutional" if name in NEEDS else "transformer"


KINDS = pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in NAMES
        for kind in ("convolutional", "transformer")
        if kind in ("convolutional", kind_for(name))
    ],
)
EACH = pytest.mark.parametrize("name", NAMES)
EACH_THAT_TRAINS = pytest.mark.parametrize("name", [name for name in NAMES if updates(name)])


@EACH
def test_its_name_is_that_of_the_table(name: str) -> None:
    assert DEFENSES[name].name == name
    assert name == name.lower()


@KINDS
def test_the_input_is_left_alone_and_the_output_is_another(name: str, kind: str) -> None:
    classifier = classifiers()[kind]
    with unmarked(classifier):
        made, _ = harden(defense(name), classifier, data()[0], seed=1)
    assert not same_weights(made, classifier)
    assert not {id(each) for each in made.parameters()} & {id(each) for each in classifier.parameters()}
    assert not made.training
    assert made(data()[1].batch(range(2))[0]).shape == (2, 3)
    assert all(value.isfinite().all() for value in made.state_dict().values())


@pytest.mark.parametrize("name", NEEDS)
def test_what_it_needs_is_said_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"needs .*{NEEDS[name]}"):
        harden(defense(name), classifiers()["transformer"], data()[0])


@KINDS
def test_the_seed_decides(name: str, kind: str) -> None:
    first, _ = usual(name, kind)
    torch.rand(3)  # and not what was drawn before
    again, other = (harden(defense(name), classifiers()[kind], data()[0], seed=seed)[0] for seed in (1, 2))
    assert same_weights(first, again)
    assert same_weights(first, other) != updates(name)


@EACH_THAT_TRAINS
def test_without_steps_nothing_changes(name: str) -> None:
    classifier = classifiers()["convolutional"]
    settings = defense(name).lasting(0)
    made, record = harden(settings, classifier, data()[0], seed=1)
    before, after = (dict(each.named_parameters()) for each in (classifier, made))
    new_head = name in ("feature-shift", "fst", "fine-pruning")  # drawn anew, or with features cut off
    drawn = {"network.9.weight", "network.9.bias"} if new_head else set()
    drawn = set(before) if name == "distillation" else drawn
    assert all(torch.equal(before[each], after[each]) for each in before.keys() - drawn)
    assert record.sample_gradients == 0


@pytest.mark.parametrize(
    ("name", "cut"),
    [(name, cut) for name in NAMES if updates(name) for cut in ((3,) if DEFENSES[name] in RIVALS else (1, 3, 5))],
)
def test_a_run_that_was_killed_continues_bit_for_bit(name: str, cut: int, tmp_path: Path) -> None:
    seen: list[int] = []

    def kill(_what: str, _done: int, _total: int) -> None:
        seen.append(1)
        if len(seen) == cut:
            raise PowerCutError

    whole, expected = usual(name, kind_for(name))
    start, images, folder = classifiers()[kind_for(name)], data()[0], tmp_path / "run"
    with pytest.raises(PowerCutError):
        harden(defense(name), start, images, seed=1, folder=folder, progress=kill)
    resumed, record = harden(defense(name), start, images, seed=1, folder=folder)
    assert same_weights(resumed, whole)
    times = {"phases": {"__all__": {"seconds"}}}
    assert record.model_dump(exclude=times) == expected.model_dump(exclude=times)


@EACH
def test_the_record_says_how_it_was_done(name: str) -> None:
    images, validation = data()
    _, record = harden(defense(name), classifiers()["convolutional"], images, seed=1, validation=validation)
    assert (record.defense, record.seed, record.images) == (name, 1, len(images))
    assert record.phases
    for phase in record.phases:
        assert phase.defense in DEFENSES
        assert phase.points_lost is not None
        if not updates(phase.defense):
            continue
        assert phase.sample_gradients >= STEPS * 16
        assert [point.step for point in phase.curve] == [2, 4, 6]
        banked = {point.bank_distance is not None for point in phase.curve}
        assert banked == {phase.defense in ("adversarial", "at-once")}  # nothing is told that was not measured
    text = record.model_dump_json()
    assert Hardening.from_json(text.encode()).model_dump_json() == text


@EACH_THAT_TRAINS
def test_it_can_be_given_as_many_steps_as_another(name: str) -> None:
    record = harden(defense(name).lasting(4), classifiers()["convolutional"], data()[0], seed=1)[1]
    assert record.phases[-1].curve[-1].step <= 4


WITHOUT_EFFECT = {"schedule.save_every", "schedule.guard_every"}
"""When something is written or looked at; `tests.training.test_loop` looks at what comes of it."""
OF_THE_GUARD = {
    "schedule.max_accuracy_loss",
    "schedule.peak_allowance",
    "schedule.collapse",
    "more_distillation",
    "passes",
}
"""They matter once accuracy falls, or with few images: see `tests.training.test_guard` and `test_pervasive`."""
OTHERS = {
    "schedule.averaging": 0.1,
    "schedule.shift": 0.25,
    "schedule.clip": 0.01,
    "max_pairs": 2,
    "floor": 1.0,
    "parts.field_grid": 4,
    "schedule.optimizer": "adam",
    "portion": 0.3,
    "pair_share": 1.0,
    "largest": 0.01,
    "anomaly": 1e9,
    "fine-pruning: loss_allowed": 0.0,
}
"""What makes a difference for digits of 8 x 8 pixels in a few steps, where half of the value does not."""


def leaves(value: Any, above: str = "") -> Iterator[str]:
    for each in fields(value):
        inside, path = getattr(value, each.name), f"{above}{each.name}"
        if is_dataclass(inside):
            yield from leaves(inside, f"{path}.")
        else:
            yield path


def changed(value: Any, path: str, other: Any = None) -> Any:
    """The settings with another value there."""
    first, _, rest = path.partition(".")
    inside = getattr(value, first)
    if rest:
        return replace(value, **{first: changed(inside, rest, other)})
    if other is not None:
        pass
    elif isinstance(inside, bool) or inside is None:
        other = not inside
    elif isinstance(inside, tuple):
        other = tuple(0.9 * each for each in inside)
    elif isinstance(inside, int):
        other = max(1, inside // 2)
    else:
        other = 0.4 if inside == 0 else 0.6 * inside
    return replace(value, **{first: other})


OF_INVERSION = ("universal.", "first.", "following.", "search.", "per_class", "searched_on")
"""See `tests.defenses.test_inversion`; in a moment no trigger gets better than its start."""
OF_PRUNING = {f"anp: {path}" for path in ("epsilon", "inner_steps", "spacing", "loss_allowed")}
"""See `tests.defenses.removal.test_anp`; in a moment no mask gets far enough."""
OF_THE_LOOP = ("schedule.", "teacher.", "end.")
"""Of the rivals, which hand them to the same loop, no more is asked than that all others have an effect."""
SETTINGS = [
    (name, path)
    for name in NAMES
    if issubclass(DEFENSES[name], Scheduled)
    for path in leaves(DEFENSES[name]())
    if DEFENSES[name] not in RIVALS or not path.startswith((*OF_THE_LOOP, *OF_INVERSION))
    if path not in WITHOUT_EFFECT | OF_THE_GUARD
    and f"{name}: {path}" not in OF_PRUNING
    and not path.startswith("parts.latent")
]


@pytest.mark.parametrize(("name", "path"), SETTINGS, ids=[f"{name}: {path}" for name, path in SETTINGS])
def test_every_setting_has_an_effect(name: str, path: str) -> None:
    settings = with_random_triggers(defense(name))
    other = changed(settings, path, OTHERS.get(f"{name}: {path}", OTHERS.get(path)))
    assert other != settings
    assert not same_weights(briefly(settings), briefly(other))


def with_random_triggers(settings: Defense) -> Defense:
    return replace(settings, random=0.25) if isinstance(settings, AdversarialTraining) else settings


@lru_cache
def briefly(settings: Defense) -> Classifier:
    """What a defense makes of the digits; do not change it."""
    return harden(settings, classifiers()["convolutional"], data()[0])[0]


@pytest.mark.usefixtures("short_autoencoder")
@pytest.mark.parametrize("path", ["parts.latent", "parts.latent_grid"])
def test_the_latent_part_has_an_effect_on_a_bank(path: str) -> None:
    settings = replace(defense("adversarial"), parts=Parts(latent=path == "parts.latent_grid"))  # type: ignore[call-arg]
    other = changed(settings, path)
    assert not same_weights(briefly(settings), briefly(other))


@pytest.mark.parametrize("made", [FeatureShift, SharpnessAware])
def test_and_is_refused_where_triggers_are_drawn_at_random(made: type[Defense]) -> None:
    with pytest.raises(InputError, match="no latent part"):
        made(parts=Parts(latent=True))  # type: ignore[call-arg]
