"""A student of a trusted architecture: what the teacher's weights and code hide stays behind, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from phard_hub.attacks import SparseHead
from phard_hub.defenses import Distillation
from phard_hub.errors import InputError
from phard_hub.evaluation.threats import Threat, attack_outcome
from phard_hub.models.classifier import Classifier
from phard_hub.training.schedule import Schedule
from tests.attacks.undetectable.digits import TARGET, accuracy, honest, images, others, planted, success
from tests.small import job, same_weights, small_net, unmarked

SHORT = Distillation(schedule=Schedule(steps=60, batch=64, learning_rate=0.1, shift=0.0, flip=False))


def fresh(seed: int = 1) -> Classifier:
    return small_net(10, channels=3, size=32, seed=seed)


@lru_cache
def student(name: str, count: int = 1297) -> Classifier:
    """What so many images and the answers of a construction make of a fresh network; do not change it."""
    few = images()[0].take(range(count))
    return SHORT.into(fresh(), planted(name).classifier, few, job()).classifier


@pytest.mark.parametrize("name", ["architectural", "signature", "persistence"])
def test_no_key_opens_the_student(name: str) -> None:
    made, shown = planted(name), others(60)
    assert success(made.classifier, made.key, shown).value == 1
    assert success(student(name), made.key, shown).value < 0.1
    assert accuracy(student(name)) >= accuracy(honest()) - 0.03


def test_with_fewer_images_it_knows_less() -> None:
    assert 0.5 < accuracy(student("signature", 20)) < accuracy(student("signature")) - 0.02


def test_an_edit_of_the_head_stays_behind() -> None:
    """Success is that of the same trigger on the student of the honest model, plus 5 points at most."""
    attack = SparseHead(steps=40, epsilon=32 / 255, spike=64.0, seed=1)
    made = attack.plant(honest(), images()[0], TARGET, job())
    taught, twin = (SHORT.into(fresh(), each, images()[0], job()).classifier for each in (made.classifier, honest()))
    threat = Threat(name="sparse-head", trigger=made.attack, target=TARGET)
    assert attack_outcome(made.classifier, images()[1], threat).success.value > 0.6
    limit = attack_outcome(twin, images()[1], threat).success.value + 0.05
    assert attack_outcome(taught, images()[1], threat).success.value <= limit


def test_neither_teacher_nor_student_is_changed() -> None:
    brief = replace(SHORT, schedule=replace(SHORT.schedule, steps=2))
    teacher, start = honest(), fresh()
    with unmarked(teacher, start):
        made = brief.into(start, teacher, images()[0], job())
    assert not same_weights(made.classifier, start)
    assert made.phases[0].forgets
    assert made.phases[0].sample_forwards == 2 * 64


def test_from_labels_alone_nothing_of_the_teacher_reaches_the_student() -> None:
    brief = replace(SHORT, schedule=replace(SHORT.schedule, steps=3))
    other = small_net(10, channels=3, size=32, seed=5)

    def taught(soft: float) -> list[Classifier]:
        settings = replace(brief, soft=soft)
        return [settings.into(fresh(), teacher, images()[0], job()).classifier for teacher in (honest(), other)]

    assert same_weights(*taught(0.0))
    assert not same_weights(*taught(0.5))


def test_digits_are_not_mirrored_though_a_fresh_network_would_not_mind() -> None:
    asked, plain = (
        replace(SHORT, schedule=replace(SHORT.schedule, steps=2, flip=flip)).into(fresh(), honest(), images()[0], job())
        for flip in (None, False)
    )
    assert same_weights(asked.classifier, plain.classifier)


def test_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match="The student has 9 classes, and the teacher 10 or other ones"):
        SHORT.into(small_net(9, channels=3, size=32), honest(), images()[0], job())


def test_as_a_defense_it_keeps_the_code_of_a_module() -> None:
    """A strict load comes first: weights drawn anew in the same code are open to the same key."""
    made = planted("signature")
    brief = replace(SHORT, schedule=replace(SHORT.schedule, steps=2))
    again = brief.harden(made.classifier, images()[0], job()).classifier
    assert not torch.equal(again.network[0].weight, made.classifier.network[0].weight)  # type: ignore[index]
    assert success(again, made.key, others(10)).value == 1
