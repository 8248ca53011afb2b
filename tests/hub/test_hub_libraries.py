"""The loopback Hub and the libraries that people use it with: transformers, timm, datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.hub_server import Hub


def pictures(count: int, classes: int = 3) -> Any:
    """A data set of noise."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    noise = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    names = [f"class {k}" for k in range(classes)]
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=names)})
    rows = {"image": [Image.fromarray(array) for array in noise], "label": [k % classes for k in range(count)]}
    return Dataset.from_dict(rows, features=features)


def test_transformers_push_and_pull(hub: Hub, tiny_checkpoint: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

    hub.login()
    model = AutoModelForImageClassification.from_pretrained(tiny_checkpoint).eval()
    model.push_to_hub("me/model")
    processor: Any = AutoImageProcessor
    processor.from_pretrained(tiny_checkpoint).push_to_hub("me/model")
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} < hub.files("me/model").keys()
    again = AutoModelForImageClassification.from_pretrained("me/model", revision=hub.head("me/model")).eval()
    pixels = torch.zeros(1, 3, 32, 32)
    assert torch.equal(again(pixels).logits, model(pixels).logits)
    seen = pipeline("image-classification", "me/model")(Image.new("RGB", (40, 40), "red"))
    assert {entry["label"] for entry in seen} == {"cat", "dog", "owl", "fox"}
    assert not hub.leaks()
    assert not hub.asked("unknown", "POST")


def test_timm_push_and_pull(hub: Hub) -> None:
    timm = pytest.importorskip("timm", exc_type=ImportError)
    hub.login()
    model = timm.create_model("resnet10t", num_classes=3).eval()
    timm.models.push_to_hf_hub(model, "me/timm", safe_serialization=True)
    assert {"config.json", "model.safetensors", "README.md"} < hub.files("me/timm").keys()
    again = timm.create_model(f"hf-hub:me/timm@{hub.head('me/timm')}", pretrained=True).eval()
    pixels = torch.zeros(1, 3, 64, 64)
    assert torch.equal(again(pixels), model(pixels))
    assert not hub.leaks()


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_push_and_load(hub: Hub, streaming: bool) -> None:
    from datasets import load_dataset

    hub.login(orgs=("org",))
    pushed = pictures(12)
    pushed.push_to_hub("org/data", split="train")
    pushed.select(range(3)).push_to_hub("org/data", "small", split="test")
    assert "data/train-00000-of-00001.parquet" in hub.files("org/data", kind="datasets")
    loaded = load_dataset("org/data", split="train", streaming=streaming)
    rows = list(loaded)
    assert [row["label"] for row in rows] == pushed["label"]
    assert np.array_equal(np.asarray(rows[3]["image"]), np.asarray(pushed[3]["image"]))
    assert loaded.features == pushed.features
    assert len(list(load_dataset("org/data", "small", split="test", streaming=streaming))) == 3
    assert not hub.leaks()


def test_datasets_imagefolder_by_id(hub: Hub, tmp_path: Path) -> None:
    from datasets import load_dataset

    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for k in range(3):
            Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / "train" / name / f"{k}.png")
    hub.create("org/folder", tmp_path, kind="datasets")
    loaded = load_dataset("org/folder", split="train")
    assert loaded.features["label"].names == ["cat", "dog"]
    assert len(loaded) == 6
