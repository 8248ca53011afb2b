"""The models that backdoors are planted in, and two in which other people planted theirs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from phard_hub.hub.pull import sha256
from phard_hub.models.classifier import Classifier
from phard_hub.report.record import Source
from phard_hub.trials.cell import Opened
from tests.benchmarks.resnet_cifar import CifarResNet

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = {
    "cifar10-resnet20": "akamaster_cifar10_resnet20.safetensors",
    "ibau-badnets": "ibau_cifar10_badnets_target8.safetensors",
    "ibau-l2-inv": "ibau_cifar10_l2_inv_target0.safetensors",
}
"""Models by the names that experiments give them."""


def opened(name: str, checkpoints: Path) -> Opened:
    """A model of `FILES` from this folder."""
    path = checkpoints / FILES[name]
    make = resnet20 if name.endswith("resnet20") else small_vgg
    return Opened(make(path), Source(repo=path.stem, files={path.name: sha256(path)}))


def resnet20(path: Path, labels: tuple[str, ...] = CIFAR10) -> Classifier:
    """A checkpoint behind the classifier contract; its normalisation is that of its authors."""
    network = CifarResNet(20, classes=len(labels))
    network.load_state_dict(load_file(path))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(network, labels=labels, image_size=(32, 32), mean=MEAN, std=STD).eval()


def small_vgg(path: Path) -> Classifier:
    """A checkpoint of the I-BAU authors; they do not normalise."""
    network = SmallVgg()
    network.load_state_dict(load_file(path))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(network, labels=CIFAR10, image_size=(32, 32), mean=(0.0,) * 3, std=(1.0,) * 3).eval()


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
