"""Small checkpoint folders, and how they are tampered with, for several files of tests about the audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from phard_hub.auditing import audit
from phard_hub.hub.pull import pull
from phard_hub.report.record import Finding

LABELS = ("cat", "dog", "owl", "fox")
Tamper = Callable[[Path], object]


def save_vit(folder: Path) -> Path:
    """Write a tiny vision transformer for 32x32 images of four classes."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(LABELS)),
        label2id={name: number for number, name in enumerate(LABELS)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_timm(folder: Path, architecture: str = "test_resnet") -> Path:
    """Write a small model in timm's format, as `timm.models.push_to_hf_hub` would."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(architecture, num_classes=len(LABELS))
    timm.models.save_for_hf(network, str(folder), model_config={"label_names": list(LABELS)}, safe_serialization=True)
    return folder


def noticed(model: Path | str, upstream: str | None = None, **options: Any) -> list[Finding]:
    """What the audit says of a model, but that there is nothing to compare it with."""
    return [found for found in audit(pull(str(model)), upstream, **options).findings if found.id != "PH-A27"]


def write_card(folder: Path, metadata: str) -> None:
    """Put a README with this metadata into a folder."""
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n# A model\n")


def set_json(name: str, **entries: Any) -> Tamper:
    """Change entries of a JSON file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **entries}))

    return change


def config(**entries: Any) -> Tamper:
    """Change entries of config.json."""
    return set_json("config.json", **entries)


def model_args(**arguments: Any) -> Tamper:
    """Change what timm's constructor is told."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        config(model_args={**content.get("model_args", {}), **arguments})(folder)

    return change


def tensors(**extra: torch.Tensor) -> Tamper:
    """Add tensors to the weights, or replace those of the same name."""

    def change(folder: Path) -> None:
        weights = folder / "model.safetensors"
        save_file({**load_file(weights), **extra}, weights, metadata={"format": "pt"})

    return change


def without(name: str) -> Tamper:
    """Take a tensor out of the weights."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights[name]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change
