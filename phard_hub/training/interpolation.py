"""Between two models: on the straight line from the weights of one to those of the other.

Between a model and what fine-tuning made of it, accuracy and what was learnt change at different places: Wortsman et
al., "Robust fine-tuning of zero-shot models" (WiSE-FT, CVPR 2022, arXiv 2109.01903).
"""

from __future__ import annotations

import torch
from torch import Tensor

from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier
from phard_hub.models.predictions import right_answers
from phard_hub.training.guard import points_lost


def between(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights at this share of the straight line, 0 for the start and 1 for the end; counters are the start's."""
    return {
        name: torch.lerp(value, end[name], share) if value.is_floating_point() else value
        for name, value in start.items()
    }


def part_of_the_way(start: Classifier, end: Classifier, share: float) -> Classifier:
    """The classifier at this share of the straight line between the weights of two; the end itself for 1."""
    if share == 1:
        return end
    made = end.clone()
    made.load_state_dict(between(start.clone().to(end.device).state_dict(), end.state_dict(), share))
    return made


def barrier_on_the_way(
    start: Classifier, end: Classifier, share: float, images: LabelledImages, device: torch.device
) -> bool:
    """Whether accuracy at this share of the way is lower than at both of its ends.

    A fine-tuned model is mostly joined to its start by a line without such a barrier, but not always: trained on a few
    hundred images, a model for traffic signs was right again at the end, and far from it on the way. Source: Frankle
    et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (ICML 2020, arXiv 1912.05671).

    Args:
        start: where the way begins.
        end: where it leads to.
        share: where on the way to look.
        images: what accuracy is measured on, 2,000 of them; those that the end was trained on will do.
        device: to measure on.
    """
    if share in (0, 1):
        return False
    images = images.take(torch.arange(len(images))[:: max(1, len(images) // 2000)])
    models = part_of_the_way(start, end, share), start.clone().to(device), end
    there, *ends = (right_answers(model, images) for model in models)
    return all(points_lost(each, there)[0] > 0 for each in ends)
