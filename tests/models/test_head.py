"""The layers that make the logits are found, whatever comes before them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, ResNetConfig, ResNetForImageClassification

from phard_hub.models.head import heads
from tests.small import as_classifier, unmarked

SHAPE = (3, 32, 32)


class TwoHeads(nn.Module):
    """The mean of two linear layers, after one of as many outputs that is no head."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Linear(5, 5), nn.Linear(5, 5)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3072, 5), nn.LayerNorm(5))

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.body(pixels)
        return torch.as_tensor((self.first(features) + self.second(features)) / 2)


def test_one_linear_layer_of_a_library_model() -> None:
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    config.num_labels = 5
    network = ResNetForImageClassification(config)
    classifier = as_classifier(network, 5, SHAPE)
    with unmarked(classifier):
        found = heads(classifier)
    assert found == (network.classifier[1],)


def test_two_heads_in_the_order_of_their_calls() -> None:
    network = TwoHeads()
    assert heads(as_classifier(network, 5, SHAPE)) == (network.first, network.second)


def test_the_heads_of_a_distilled_model() -> None:
    config = DeiTConfig(
        image_size=32,
        patch_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    config.num_labels = 5
    network = DeiTForImageClassificationWithTeacher(config)
    assert set(heads(as_classifier(network, 5, SHAPE))) == {network.cls_classifier, network.distillation_classifier}


def test_a_convolution_before_pooling_counts() -> None:
    convolution = nn.Conv2d(3, 4, 1)
    network = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert heads(as_classifier(network, 4, SHAPE)) == (convolution,)


def test_no_head_where_other_layers_make_the_logits() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), nn.LayerNorm(4))
    assert heads(as_classifier(network, 4, SHAPE)) == ()
