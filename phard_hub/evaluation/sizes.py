"""How large a trigger is, in the unit of class distances, and how much of the picture is left."""

from __future__ import annotations

import torch

from phard_hub.images import LabelledImages
from phard_hub.report.distances import grey_levels
from phard_hub.report.record import TriggerSize
from phard_hub.triggers.bank import Trigger, change_size


def trigger_size(trigger: Trigger, images: LabelledImages, device: torch.device | None = None) -> TriggerSize:
    """Measure a trigger on all of these images, at least 8 x 8 pixels large."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    shape = images.pixels.shape[1:]
    norms, similar = [], []
    with torch.no_grad():
        for pixels, _ in images.batches(device):
            stamped = trigger(pixels)
            norms.append(change_size(stamped, pixels).cpu())
            ssim = structural_similarity_index_measure(stamped, pixels, data_range=1.0, reduction="none")
            assert isinstance(ssim, torch.Tensor)
            similar.append(ssim.cpu())
    l2 = float(torch.cat(norms).mean())
    return TriggerSize(l2=l2, rms=grey_levels(l2, shape), ssim=float(torch.cat(similar).mean()), n=len(images))
