"""Train the autoencoder that the latent part of a trigger edits.

Processes divide each batch in pieces, and all add up the gradients of all pieces in the same order: so they come to
the same weights, to the last bit, however many they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from phard_hub.hardware import fast_autocast
from phard_hub.images import LabelledImages
from phard_hub.job import PIECES, Progress, shared, silent
from phard_hub.triggers.generator import Autoencoder

STEPS, BATCH = 400, 64


def train_autoencoder(
    images: LabelledImages,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = silent,
) -> Autoencoder:
    """An autoencoder of the defender's own images, frozen; global generators are left as they were.

    Args:
        images: what it learns to draw.
        steps: of Adam on the mean squared error, annealed along half a cosine.
        batch: images in a step.
        learning_rate: at the start.
        seed: of the weights and the draws.
        device: where it is trained and stays; the CPU if None. Processes train it together, and all have to call this.
        progress: called after each step.
    """
    device = device or torch.device("cpu")
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = Autoencoder(images.shape[0]).to(device)
    convert_conv2d_weight_memory_format(autoencoder, torch.channels_last)  # 1.5 times as fast
    parameters = list(autoencoder.parameters())
    optimizer = torch.optim.Adam(parameters, learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=random)

        def gradients(piece: Tensor, chosen: Tensor = chosen) -> list[Tensor]:
            return [_gradient(autoencoder, images.batch(chosen[int(piece) :: PIECES], device)[0])]

        (found,) = shared(gradients, torch.arange(min(batch, PIECES)), 1)
        mean = (found.sum(0) / (batch * math.prod(images.shape))).to(device)
        for parameter, gradient in zip(parameters, mean.split([each.numel() for each in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        optimizer.step()
        schedule.step()
        progress("training autoencoder", step + 1, steps)
    return autoencoder.eval().requires_grad_(False)


def _gradient(autoencoder: Autoencoder, pixels: Tensor) -> Tensor:
    """Of the summed squared error with respect to all parameters, one after the other ``(1, P)``."""
    with fast_autocast(pixels.device):
        decoded = autoencoder(pixels)
    error = functional.mse_loss(decoded.float(), pixels, reduction="sum")
    gradients = torch.autograd.grad(error, list(autoencoder.parameters()))
    return torch.cat([each.flatten() for each in gradients])[None].cpu()
