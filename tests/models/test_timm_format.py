"""Models in timm's own format: what timm makes of them, and nothing but the file that was hashed."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from phard_hub.auditing import audit
from phard_hub.errors import CheckpointError
from phard_hub.hub.pull import pull
from phard_hub.hub.snapshot import Audit
from phard_hub.models.classifier import Classifier
from phard_hub.models.loading import load
from phard_hub.models.processor import TOLERANCE, processor_difference, rebuild
from phard_hub.models.timm_format import TimmProcessor
from tests.auditing.checkpoints import LABELS, Tamper, config, model_args, save_timm, without
from tests.hub_server import Hub
from tests.small import global_random_state

timm = pytest.importorskip("timm", exc_type=ImportError)

LOGIT_ATOL = 1e-4  # 0.0 was seen


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_timm(tmp_path / "model")


def load_folder(folder: Path) -> Classifier:
    return load(audit(pull(str(folder))))


def load_as_if_in_order(folder: Path) -> Classifier:
    """Load a folder that the audit refuses, as loading has to refuse it, too."""
    snapshot = pull(str(folder))
    assert audit(snapshot).errors
    return load(Audit(snapshot, ()))


def timms_own(folder: Path) -> tuple[torch.nn.Module, Callable[[Image.Image], torch.Tensor]]:
    """What a user of timm gets: the network and its transform."""
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return network, timm.data.create_transform(**timm.data.resolve_model_data_config(network))


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def to_pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def test_gives_what_timm_gives(model: Path) -> None:
    classifier = load_folder(model)
    network, transform = timms_own(model)
    assert type(classifier.network).__module__.startswith("timm.")
    assert classifier.labels == LABELS
    assert not classifier.training
    image = noise(*classifier.image_size)
    with torch.no_grad():
        ours, real = classifier(to_pixels(image)), network(transform(image)[None])
    assert (ours - real).abs().max() <= LOGIT_ATOL
    stored, weights = load_file(model / "model.safetensors"), classifier.weights()
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], weights[name]) for name in stored)


def test_asks_nobody_and_leaves_the_generators_alone(model: Path, hub: Hub) -> None:
    hub.create("org/model", model)
    audited = audit(pull("org/model"))
    hub.log.clear()
    before = global_random_state()
    load(audited)
    assert hub.log == []
    assert global_random_state() == before
    random.random()
    assert global_random_state() != before


def pretrained_cfg(**entries: Any) -> Tamper:
    """Change what timm knows of the weights."""

    def change(folder: Path) -> None:
        inner = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
        config(pretrained_cfg={**inner, **entries})(folder)

    return change


def drop(key: str) -> Tamper:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        del content[key]
        (folder / "config.json").write_text(json.dumps(content))

    return change


def old_format(folder: Path) -> None:
    """One flat dictionary, as timm wrote it until 2022."""
    content = json.loads((folder / "config.json").read_text())
    flat = {**content["pretrained_cfg"], "architecture": content["architecture"], "labels": content["label_names"]}
    (folder / "config.json").write_text(json.dumps(flat))


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        (config(label_names={"1": "b", "0": "a", "3": "d", "2": "c"}), ("a", "b", "c", "d")),
        (drop("label_names"), ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")),
        (old_format, LABELS),
    ],
)
def test_labels(model: Path, change: Tamper, labels: tuple[str, ...]) -> None:
    change(model)
    assert load_folder(model).labels == labels


def test_classes_without_names_may_be_those_of_imagenet(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet")
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=True)
    assert load_folder(tmp_path).labels[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")


def as_half(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, folder / "model.safetensors")


def test_computes_in_32_bits(model: Path) -> None:
    as_half(model)
    assert {value.dtype for value in load_folder(model).weights().values() if value.is_floating_point()} == {
        torch.float32
    }


def test_weights_that_timm_converts(tmp_path: Path) -> None:
    """Patch embeddings were linear layers once."""
    folder = save_timm(tmp_path, "test_vit")
    stored = load_file(folder / "model.safetensors")
    name = "patch_embed.proj.weight"
    save_file({**stored, name: stored[name].flatten(1)}, folder / "model.safetensors")
    weights = load_folder(folder).weights()
    assert all(torch.equal(stored[name], weights[name]) for name in stored)
    assert [finding.severity for finding in audit(pull(str(folder))).findings] == ["note", "warning"]


def rename_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")


@pytest.mark.parametrize(
    ("architecture", "spoil", "expected"),
    [
        ("test_resnet", without("bn1.weight"), "cannot be loaded"),
        ("test_resnet", config(architecture="never_heard_of"), "Unknown model"),
        ("test_resnet", config(architecture="test_vit"), "cannot be loaded"),
        ("test_resnet", config(label_names=["a", "b"]), "4 classes and 2 label_names"),
        ("test_resnet", model_args(features_only=True), "cannot"),
        ("test_resnet", pretrained_cfg(std=[0, 0, 0]), "cannot be"),
        ("test_resnet", pretrained_cfg(input_size="large"), "cannot be"),
        ("test_resnet", pretrained_cfg(interpolation="hamming"), "cannot be"),
        ("test_resnet", pretrained_cfg(crop_mode="border"), "cannot be rebuilt"),
        ("test_resnet", rename_weights, "has no model.safetensors"),
        # DLA takes weights that are not complete; here nothing does
        ("dla46x_c", without("base_layer.1.weight"), "cannot be loaded"),
    ],
)
def test_refuses(tmp_path: Path, architecture: str, spoil: Tamper, expected: str) -> None:
    folder = save_timm(tmp_path / "model", architecture)
    spoil(folder)
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_as_if_in_order(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.advice


def test_a_last_layer_of_chance_is_refused(model: Path) -> None:
    """timm drops a last layer of another size and goes on with one that it draws."""
    for change in (drop("num_classes"), drop("label_names"), model_args(num_classes=7)):
        change(model)
    with pytest.raises(CheckpointError, match="not for 7 classes"):
        load_as_if_in_order(model)


@pytest.mark.parametrize(
    "settings",
    [
        {"input_size": (3, 64, 64), "crop_pct": 0.875},
        {"input_size": (3, 64, 64), "crop_pct": 0.95},  # 67: half of the margin is 1.5
        {"input_size": (3, 224, 224), "crop_pct": 0.95, "interpolation": "bilinear"},  # 235: 5.5
        {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "squash"},
        {"input_size": (3, 48, 64), "crop_pct": 0.9, "crop_mode": "squash"},
        {"input_size": (1, 28, 28), "crop_pct": 1.0, "mean": (0.13,), "std": (0.31,)},
    ],
)
def test_rebuilds_timms_transform(settings: dict[str, Any]) -> None:
    network = torch.nn.Identity()
    usual = {"interpolation": "bicubic", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "crop_mode": "center"}
    network.pretrained_cfg = {**usual, **settings}  # type: ignore[assignment]
    processor = TimmProcessor(network)
    classifier = rebuild(network, processor, labels=("cat", "dog"), channels=settings["input_size"][0])
    assert processor_difference(classifier, processor) <= TOLERANCE
    assert classifier.preprocess(torch.rand(2, classifier.channels, 100, 90)).shape[1:] == settings["input_size"]


@pytest.mark.parametrize("stub", ["raise RuntimeError('operator torchvision::nms does not exist')", None])
@pytest.mark.parametrize("wrapped", [False, True])
def test_says_that_timm_is_needed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: str | None, *, wrapped: bool
) -> None:
    if wrapped:
        config(model_type="timm_wrapper")(model)
    if stub:
        (tmp_path / "timm.py").write_text(stub)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "timm")
    else:
        monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CheckpointError, match=r"needs timm, which cannot be imported: .*phard-hub\[timm\]") as caught:
        load_as_if_in_order(model)
    assert "\n" not in str(caught.value)
    (found,) = audit(pull(str(model))).errors
    assert (found.id, "needs timm" in found.evidence, "phard-hub[timm]" in found.advice) == ("PH-A19", True, True)
