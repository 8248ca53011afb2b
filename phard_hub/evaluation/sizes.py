"""How large a trigger is, in the unit of class distances, and how much of the picture is left."""

from __future__ import annotations

import torch
from torch import Tensor

from phard_hub.images import LabelledImages
from phard_hub.job import shared
from phard_hub.report.distances import grey_levels
from phard_hub.report.record import TriggerSize
from phard_hub.triggers.bank import Trigger, change_size


def trigger_size(trigger: Trigger, images: LabelledImages, device: torch.device | None = None) -> TriggerSize:
    """Measure a trigger on all of these images, at least 8 x 8 pixels large; all processes of the job have to."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    shape = images.shape

    @torch.no_grad()
    def compared(numbers: Tensor) -> list[Tensor]:
        pixels, _ = images.batch(numbers, device)
        stamped = trigger(pixels)
        similar = structural_similarity_index_measure(stamped, pixels, data_range=1.0, reduction="none")
        assert isinstance(similar, Tensor)
        return [change_size(stamped, pixels).cpu(), similar.cpu()]

    norms, similar = shared(compared, torch.arange(len(images)), images.at_once)
    l2 = float(norms.mean())
    return TriggerSize(l2=l2, rms=grey_levels(l2, shape), ssim=float(similar.mean()), n=len(images))
