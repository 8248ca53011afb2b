"""NAD: the copy looks where its teacher looks."""

from __future__ import annotations

from dataclasses import replace

import torch

from phard_hub.defenses.removal.finetuning import PublishedFineTuning
from phard_hub.defenses.removal.nad import AttentionDistillation, _Objective, outputs_of, stages
from phard_hub.models.classifier import Classifier
from tests.defenses.planted import defended, defenders, planted, short
from tests.small import batch, job, trained_digits, unmarked

SETTINGS = short(AttentionDistillation(), steps=60)


def distance(one: Classifier, other: Classifier) -> float:
    """Of the attention maps, over the last features of each size."""
    objective = _Objective(SETTINGS, one.clone().eval(), other)
    pixels = batch(defenders()[0], 64).pixels
    maps = []
    for classifier in (one, other):
        with outputs_of(classifier, objective.stages) as found, torch.no_grad():
            classifier.eval()(pixels)
        maps.append(torch.cat([objective._attention(found[name]).flatten(1) for name in objective.stages], 1))
    return float((maps[0] - maps[1]).square().mean())


def test_the_stages_are_where_the_last_features_of_each_size_come_out() -> None:
    classifier = trained_digits(3)
    with unmarked(classifier):
        assert stages(classifier) == ["network.2", "network.6"]


def test_the_attention_comes_closer_to_the_teachers() -> None:
    made, record = defended(SETTINGS)
    alone, _ = defended(replace(SETTINGS, weights=(0.0, 0.0, 0.0)))
    assert [phase.defense for phase in record.phases] == ["ft", "nad"]
    part = job().part("hardening").part("teacher")
    teacher = PublishedFineTuning(schedule=SETTINGS.teacher).harden(planted(), defenders()[0], part).classifier
    assert distance(teacher, made) < distance(teacher, alone)


def test_an_attention_map_has_length_one() -> None:
    objective = _Objective(SETTINGS, planted().clone(), planted().clone())
    features = torch.rand(2, 5, 3, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    expected = features.pow(2).sum(1)
    expected = expected / expected.flatten(1).norm(dim=1)[:, None, None]
    assert torch.allclose(objective._attention(features), expected, atol=1e-5)
