"""What a stranger gets who uses a repository on the Hub with its library alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

Logits = Callable[[Sequence[Image.Image]], Tensor]


def with_transformers(repo: str, revision: str) -> Logits:
    """The model and the image processor that the Auto classes load."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    network = AutoModelForImageClassification.from_pretrained(repo, revision=revision).eval()
    from_pretrained: Any = AutoImageProcessor.from_pretrained
    processor = from_pretrained(repo, revision=revision, backend="pil")
    return lambda images: network(**processor(list(images), return_tensors="pt")).logits


def with_timm(repo: str, revision: str) -> Logits:
    """The model, and the transform that belongs to it."""
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    network = timm.create_model(f"hf-hub:{repo}@{revision}", pretrained=True).eval()
    prepared: Any = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    transform: Any = create_transform(**prepared)
    return lambda images: network(torch.stack([transform(image) for image in images]))


CLIENTS: dict[str, Callable[[str, str], Logits]] = {"transformers": with_transformers, "timm": with_timm}
