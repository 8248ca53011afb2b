"""Train the autoencoder that the latent part of a trigger edits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from phard_hub.hardware import fast_autocast
from phard_hub.job import Progress, silent
from phard_hub.triggers.generator import Autoencoder

STEPS, BATCH = 400, 64


def train_autoencoder(
    pixels: Tensor,
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
        pixels: images to learn, uint8 ``(N, C, H, W)``.
        steps: of Adam on the mean squared error, annealed along half a cosine.
        batch: images in a step.
        learning_rate: at the start.
        seed: of the weights and the draws.
        device: where it is trained and stays; the CPU if None.
        progress: called after each step.
    """
    device = device or torch.device("cpu")
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = Autoencoder(pixels.shape[1]).to(device)
    convert_conv2d_weight_memory_format(autoencoder, torch.channels_last)  # 1.5 times as fast
    optimizer = torch.optim.Adam(autoencoder.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        chosen = torch.randint(len(pixels), (batch,), generator=random)
        images = pixels[chosen].to(device).float() / 255
        with fast_autocast(device):
            decoded = autoencoder(images)
        optimizer.zero_grad()
        functional.mse_loss(decoded.float(), images).backward()
        optimizer.step()
        schedule.step()
        progress("training autoencoder", step + 1, steps)
    return autoencoder.eval().requires_grad_(False)
