"""The models that backdoors are planted in, and two in which other people planted theirs."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Features
from pyarrow.parquet import read_schema
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import DenseNet  # type: ignore[import-untyped]
from transformers import ConvNextConfig, ConvNextForImageClassification, ViTConfig, ViTForImageClassification

from phard_hub.hub.pull import sha256
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Source
from phard_hub.trials.cell import Opened
from tests.benchmarks.resnet_cifar import CifarResNet

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = {
    "cifar10-resnet20": "akamaster_cifar10_resnet20.safetensors",
    "gtsrb_roi32-resnet20": "gtsrb_roi32-resnet20.safetensors",
    "gtsrb_roi32-vit": "gtsrb_roi32-vit.safetensors",
    "gtsrb_roi32-convnext": "gtsrb_roi32-convnext.safetensors",
    "fashion_mnist-densenet": "fashion_mnist-densenet.safetensors",
    "ibau-badnets": "ibau_cifar10_badnets_target8.safetensors",
    "ibau-l2-inv": "ibau_cifar10_l2_inv_target0.safetensors",
}
"""Models by the names that experiments give them."""


def opened(name: str, checkpoints: Path, data: Path) -> Opened:
    """A model of `FILES` from the first folder, for images of the second."""
    path = checkpoints / FILES[name]
    classifier = untrained(name, data)
    classifier.network.load_state_dict(load_file(path))
    return Opened(classifier, Source(repo=path.stem, files={path.name: sha256(path)}))


def untrained(name: str, data: Path) -> Classifier:
    """A model of `FILES`, with weights drawn at random."""
    images, network = name.split("-", 1)
    if images == "ibau":
        return behind_contract(SmallVgg(), CIFAR10, (0.0,) * 3, (1.0,) * 3)  # they do not normalise
    labels = CIFAR10 if images == "cifar10" else class_names(data / f"{images}_test.parquet")
    return behind_contract(NETWORKS[network](len(labels)), labels)


def behind_contract(
    network: nn.Module, labels: tuple[str, ...], mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> Classifier:
    """A network for 32 x 32 images, in the memory format in which it is fast."""
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(network, labels=labels, image_size=(32, 32), mean=mean, std=std).eval()


def class_names(images: Path) -> tuple[str, ...]:
    """The names of the classes that a parquet file carries."""
    return tuple(Features.from_arrow_schema(read_schema(images))["label"].names)


def resnet20(classes: int) -> nn.Module:
    """0.27 million weights."""
    return CifarResNet(20, classes)


def small_vit(classes: int) -> nn.Module:
    """A vision transformer with patches of 4 x 4 and 0.39 million weights."""
    layers = ViTConfig(
        num_hidden_layers=4, num_attention_heads=3, hidden_size=96, intermediate_size=288, image_size=32, patch_size=4
    )
    layers.num_labels = classes
    return ViTForImageClassification(layers)


def small_convnext(classes: int) -> nn.Module:
    """Three stages of two blocks, from patches of 2 x 2 on, and 1.2 million weights."""
    stages = ConvNextConfig(
        num_stages=3,
        hidden_sizes=[32, 64, 128],
        depths=[2, 2, 2],
        image_size=32,
        patch_size=2,
        layer_scale_init_value=0.1,  # at the usual 1e-6 a short training is over before the blocks wake up
    )
    stages.num_labels = classes
    return ConvNextForImageClassification(stages)


def small_densenet(classes: int) -> nn.Module:
    """Three blocks of six layers, from the whole resolution on, and 0.18 million weights."""
    network: nn.Module = DenseNet(growth_rate=12, block_config=(6, 6, 6), num_init_features=24, num_classes=classes)
    # The usual first layers are for large images.
    network.set_submodule("features.conv0", nn.Conv2d(3, 24, 3, padding=1, bias=False))
    network.set_submodule("features.pool0", nn.Identity())
    return network


NETWORKS = {"resnet20": resnet20, "vit": small_vit, "convnext": small_convnext, "densenet": small_densenet}


class SmallVgg(nn.Module):
    """Three stages of two convolutions with batch norm and ELU; the names are those of I-BAU's checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, dropout in ((32, 0.2), (64, 0.3), (128, 0.4)):
            for _ in range(2):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ELU()]
                inputs = outputs
            layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(2048, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, 3, 32, 32)`` to logits."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
