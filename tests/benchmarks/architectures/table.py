"""The models of the table: small, with random weights, each in the form that its library gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

LABELS = ("zero", "one", "two")


@dataclass(frozen=True, kw_only=True)
class Transformers:
    """A model of transformers.

    Attributes:
        name: as people call it.
        family: which others it resembles.
        model: the name of its class.
        config: what differs from its config's defaults.
        processor: the name of its image processor's class; None if it is part of the config.
        processing: what differs from the defaults of that one.
    """

    name: str
    family: str
    model: str
    config: dict[str, Any]
    processor: str | None
    processing: dict[str, Any] = field(default_factory=dict)

    library = "transformers"

    def publish(self, repo: str) -> None:
        """Make it and push it to the Hub, as its authors would."""
        for part in self.made(LABELS):
            part.push_to_hub(repo)

    def made(self, labels: tuple[str, ...]) -> list[Any]:
        """The network, and its image processor if it has one of its own."""
        import transformers

        cls: Any = getattr(transformers, self.model)
        names = dict(enumerate(labels))
        config = cls.config_class(
            id2label=names, label2id={name: k for k, name in names.items()}, num_labels=len(names), **self.config
        )
        network = drawn(lambda: cls(config))
        return [
            network,
            *([] if self.processor is None else [getattr(transformers, self.processor)(**self.processing)]),
        ]


@dataclass(frozen=True, kw_only=True)
class Timm:
    """A model of timm.

    Attributes:
        name: its architecture.
        family: which others it resembles.
        size: of its images.
        arguments: for the constructor.
        data: how its images are prepared, where that is not what is usual for the architecture.
    """

    name: str
    family: str
    size: int
    arguments: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    library = "timm"

    def publish(self, repo: str) -> None:
        """Make it and push it to the Hub, as its authors would."""
        import timm

        network = drawn(lambda: timm.create_model(self.name, num_classes=len(LABELS), **self.arguments))
        timm.models.push_to_hf_hub(
            network,
            repo,
            model_config={"label_names": list(LABELS)},
            data_config={"input_size": (3, self.size, self.size), **self.data},
            safe_serialization=True,
        )


Architecture = Transformers | Timm


def drawn(make: Callable[[], nn.Module]) -> Any:
    """A network with weights drawn from a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def _square(size: int) -> dict[str, Any]:
    return {"size": {"height": size, "width": size}}


def _cropped(size: int, crop: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": size}, "crop_size": {"height": crop, "width": crop}}


_SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_TRANSFORMER: dict[str, Any] = {**_SMALL, "image_size": 32, "patch_size": 8}
_WINDOWS: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
_PYRAMID: dict[str, Any] = {
    "image_size": 64,
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 16, 16],
    "num_attention_heads": [1, 2, 2, 2],
}
_FOUR_STAGES: dict[str, Any] = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
_TWO_TOWERS: dict[str, Any] = {"vision_config": _TRANSFORMER, "text_config": {**_SMALL, "vocab_size": 32}}
_WRAPPED: dict[str, Any] = {
    "architecture": "test_vit",
    "model_args": {"img_size": 32},
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    },
}
_DINO: dict[str, Any] = {**_TRANSFORMER, "mlp_ratio": 2}
del _DINO["intermediate_size"]


def _of(
    name: str, family: str, model: str, config: dict[str, Any], processor: str | None, processing: dict[str, Any]
) -> Transformers:
    return Transformers(
        name=name,
        family=family,
        model=f"{model}ForImageClassification",
        config=config,
        processor=f"{processor}ImageProcessorPil" if processor else None,
        processing=processing,
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    _of(
        "ResNet",
        "ResNet",
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "ConvNext",
        {"size": {"shortest_edge": 32}},
    ),
    _of(
        "BiT",
        "ResNet",
        "Bit",
        {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "num_groups": 8},
        "Bit",
        _cropped(36, 32),
    ),
    _of(
        "RegNet",
        "RegNet",
        "RegNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8},
        "ConvNext",
        {"size": {"shortest_edge": 32}},
    ),
    _of("ConvNeXt", "ConvNeXt", "ConvNext", _FOUR_STAGES, "ConvNext", {"size": {"shortest_edge": 32}}),
    _of("ConvNeXt v2", "ConvNeXt", "ConvNextV2", _FOUR_STAGES, "ConvNext", {"size": {"shortest_edge": 32}}),
    _of("MobileNet v1", "MobileNet", "MobileNetV1", {"depth_multiplier": 0.25}, "MobileNetV1", _cropped(36, 32)),
    _of("MobileNet v2", "MobileNet", "MobileNetV2", {"depth_multiplier": 0.25}, "MobileNetV2", _cropped(36, 32)),
    _of(
        "MobileViT",
        "MobileViT",
        "MobileViT",
        {
            "image_size": 32,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32],
            "num_attention_heads": 2,
        },
        "MobileViT",
        _cropped(36, 32),
    ),
    _of(
        "MobileViT v2",
        "MobileViT",
        "MobileViTV2",
        {"image_size": 64, "width_multiplier": 0.25},
        "MobileViT",
        _cropped(72, 64),
    ),
    _of(
        "EfficientNet",
        "EfficientNet",
        "EfficientNet",
        {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
        "EfficientNet",
        _square(32),
    ),
    _of("ViT", "ViT", "ViT", _TRANSFORMER, "ViT", _square(32)),
    _of("ViT MSN", "ViT", "ViTMSN", _TRANSFORMER, "ViT", _square(32)),
    _of("I-JEPA", "ViT", "IJepa", _TRANSFORMER, "ViT", _square(32)),
    _of("DeiT", "DeiT", "DeiT", _TRANSFORMER, "DeiT", {**_square(36), "crop_size": {"height": 32, "width": 32}}),
    replace(
        _of("DeiT, distilled", "DeiT", "DeiT", _TRANSFORMER, "DeiT", {**_square(32), "do_center_crop": False}),
        model="DeiTForImageClassificationWithTeacher",
    ),
    _of(
        "BEiT",
        "BEiT",
        "Beit",
        {**_TRANSFORMER, "use_relative_position_bias": True, "use_mean_pooling": True, "out_indices": [1]},
        "Beit",
        {**_square(32), "do_center_crop": False},
    ),
    _of(
        "Data2Vec Vision",
        "BEiT",
        "Data2VecVision",
        {**_TRANSFORMER, "out_indices": [1]},
        "Beit",
        {**_square(32), "do_center_crop": False},
    ),
    _of("DINOv2", "DINOv2", "Dinov2", _DINO, "Bit", _cropped(36, 32)),
    _of("DINOv2, registers", "DINOv2", "Dinov2WithRegisters", _DINO, "Bit", _cropped(36, 32)),
    _of("Swin", "Swin", "Swin", _WINDOWS, "ViT", _square(32)),
    _of("Swin v2", "Swin", "Swinv2", _WINDOWS, "ViT", _square(32)),
    _of(
        "Hiera",
        "Hiera",
        "Hiera",
        {
            "image_size": [32, 32],
            "patch_size": [3, 3],
            "patch_stride": [2, 2],
            "patch_padding": [1, 1],
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "num_query_pool": 1,
            "masked_unit_size": [4, 4],
            "query_stride": [2, 2],
        },
        "Bit",
        _cropped(36, 32),
    ),
    _of(
        "FocalNet",
        "FocalNet",
        "FocalNet",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 8,
            "depths": [1, 1],
            "focal_levels": [1, 1],
            "focal_windows": [3, 3],
        },
        "Bit",
        _cropped(36, 32),
    ),
    replace(
        _of(
            "LeViT",
            "LeViT",
            "Levit",
            {
                "image_size": 64,
                "hidden_sizes": [16, 24, 32],
                "num_attention_heads": [1, 1, 2],
                "depths": [1, 1, 1],
                "key_dim": [8, 8, 8],
            },
            "Levit",
            _cropped(64, 64),
        ),
        model="LevitForImageClassificationWithTeacher",
    ),
    _of("PVT", "PVT", "Pvt", {**_PYRAMID, "sequence_reduction_ratios": [8, 4, 2, 1]}, "Pvt", _square(64)),
    _of("PVT v2", "PVT", "PvtV2", _PYRAMID, "Pvt", _square(64)),
    _of(
        "CvT",
        "CvT",
        "Cvt",
        {"embed_dim": [8, 16, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
        "ConvNext",
        {"size": {"shortest_edge": 32}},
    ),
    _of("PoolFormer", "PoolFormer", "PoolFormer", _FOUR_STAGES, "PoolFormer", _cropped(32, 32)),
    _of(
        "SwiftFormer",
        "SwiftFormer",
        "SwiftFormer",
        {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [8, 16, 16, 24]},
        "ViT",
        _square(64),
    ),
    _of(
        "SegFormer",
        "SegFormer",
        "Segformer",
        {
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 8, 16, 16],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
        },
        "Segformer",
        _square(32),
    ),
    _of(
        "HGNet v2",
        "HGNet",
        "HGNetV2",
        {
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 8, 8, 8],
            "stage_mid_channels": [8, 8, 8, 8],
            "stage_out_channels": [8, 8, 8, 16],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [1, 1, 1, 1],
            "hidden_sizes": [8, 8, 8, 16],
            "depths": [1, 1, 1, 1],
            "embedding_size": 8,
        },
        "ViT",
        _square(32),
    ),
    _of("CLIP", "CLIP", "CLIP", _TWO_TOWERS, "CLIP", _cropped(36, 32)),
    _of("MetaCLIP 2", "CLIP", "MetaClip2", _TWO_TOWERS, "CLIP", _cropped(36, 32)),
    _of("SigLIP", "CLIP", "Siglip", _TWO_TOWERS, "Siglip", _square(32)),
    # What follows is refused: sizes that follow those of the image, a crop before resizing, colours as numbers.
    _of(
        "TextNet",
        "TextNet",
        "TextNet",
        {"stem_out_channels": 8, "hidden_sizes": [8, 8, 16, 16, 32]},
        "TextNet",
        _cropped(32, 32),
    ),
    _of(
        "SigLIP 2",
        "CLIP",
        "Siglip2",
        {"vision_config": {**_SMALL, "num_patches": 16, "patch_size": 8}, "text_config": _TWO_TOWERS["text_config"]},
        "Siglip2",
        {"patch_size": 8, "max_num_patches": 16},
    ),
    replace(
        _of(
            "Perceiver",
            "Perceiver",
            "Perceiver",
            {
                "num_latents": 8,
                "d_latents": 16,
                "num_self_attends_per_block": 1,
                "num_self_attention_heads": 2,
                "num_cross_attention_heads": 1,
            },
            "Perceiver",
            {**_square(32), "crop_size": {"height": 36, "width": 36}},
        ),
        model="PerceiverForImageClassificationConvProcessing",
    ),
    _of(
        "ImageGPT",
        "ImageGPT",
        "ImageGPT",
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 64},
        "ImageGPT",
        {**_square(8), "clusters": [[-1.0, -1.0, -1.0]] * 8},
    ),
    _of("timm's test_vit", "timm in transformers", "TimmWrapper", _WRAPPED, None, {}),
    Timm(name="test_resnet", family="ResNet", size=32),
    Timm(name="test_vit", family="ViT", size=32, arguments={"img_size": 32}),
    Timm(name="mobilenetv3_small_050", family="MobileNet", size=32, data={"crop_pct": 0.9}),
    Timm(name="test_convnext", family="ConvNeXt", size=32),
    Timm(name="levit_128s", family="LeViT", size=64, arguments={"img_size": 64}),
)


def write_model(name: str, labels: tuple[str, ...], folder: Path) -> None:
    """Write a model of transformers of the table to a folder, for these classes."""
    (found,) = (each for each in ARCHITECTURES if each.name == name)
    assert isinstance(found, Transformers)
    for part in found.made(labels):
        part.save_pretrained(folder)
