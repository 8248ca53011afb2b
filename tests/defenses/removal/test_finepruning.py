"""Fine-Pruning: the features that clean images use least are cut off, and stay so."""

from __future__ import annotations

from dataclasses import replace

import torch

from phard_hub.defenses.removal.finepruning import FinePruning, _mean_inputs
from phard_hub.models.head import heads
from tests.defenses.planted import defended, defenders, planted, short

SETTINGS = short(FinePruning())


def test_the_least_used_features_stay_cut_off() -> None:
    images, _ = defenders()
    means = _mean_inputs(planted(), heads(planted())[-1], images)
    made, record = defended(SETTINGS)
    cut = (heads(made)[-1].weight == 0).all(0)
    assert record.phases[0].events == (f"{int(cut.sum())} of 512 features cut off",)
    assert 0 < cut.sum() < 512
    assert means[cut].max() <= means[~cut].min()


def test_how_many_depends_on_the_accuracy_that_may_be_lost() -> None:
    counts = [
        int((heads(defended(replace(SETTINGS.lasting(0), loss_allowed=allowed))[0])[-1].weight == 0).all(0).sum())
        for allowed in (0.0, 0.1, 0.6)
    ]
    assert counts[0] <= counts[1] < counts[2]


def test_the_mean_of_an_input() -> None:
    images, classifier = defenders()[0], planted()
    seen: list[torch.Tensor] = []
    handle = heads(classifier)[-1].register_forward_pre_hook(lambda _head, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        classifier.clone().eval()
        classifier(images.batch(range(len(images)))[0])
    handle.remove()
    assert torch.allclose(_mean_inputs(classifier, heads(classifier)[-1], images), seen[0].mean(0), atol=1e-4)
