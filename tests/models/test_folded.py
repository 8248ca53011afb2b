import pytest
import torch
from torch import Tensor, nn

from phard_hub.models.classifier import Classifier
from phard_hub.models.folded import folded


class _Block(nn.Module):
    """A convolution and its norm; what the convolution gave is used otherwise as well, if asked for."""

    def __init__(self, *, also: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.also, self.twice = also, twice
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)

    def forward(self, pixels: Tensor) -> Tensor:
        given = self.convolution(pixels)
        out: Tensor = self.norm(given)
        if self.twice:
            out = self.norm(self.convolution(out))
        return out + given if self.also else out


def _classifier(*layers: nn.Module) -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 2.0)  # type: ignore[arg-type]
    return Classifier(network, labels=list("abcd"), image_size=(8, 8), mean=[0.5] * 3, std=[0.5] * 3)


def _norms(classifier: Classifier) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in classifier.modules())


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        pytest.param([_Block()], 0, id="a norm behind its convolution"),
        pytest.param([nn.BatchNorm2d(3), nn.ReLU(), _Block()], 1, id="a norm behind nothing"),
        pytest.param([nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)], 1, id="something in between"),
        pytest.param([_Block(twice=True)], 1, id="both used twice"),
        pytest.param([_Block(also=True)], 1, id="what the convolution gave goes elsewhere, too"),
    ],
)
def test_folded_copy_gives_the_answers_of_the_classifier_and_leaves_it_alone(
    layers: list[nn.Module], left: int
) -> None:
    classifier = _classifier(*layers).train()
    state = classifier.weights()
    pixels = torch.rand(6, 3, 8, 8)
    copy = folded(classifier, pixels[:2])
    assert classifier.training
    assert all(torch.equal(value, state[name]) for name, value in classifier.weights().items())
    assert _norms(copy) == left
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    with torch.no_grad():
        assert torch.allclose(copy(pixels), classifier.eval()(pixels), atol=1e-4)


def test_norms_of_timm_keep_their_activation() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("efficientnet_lite0", num_classes=4)
    classifier = Classifier(network, labels=list("abcd"), image_size=(32, 32), mean=[0.5] * 3, std=[0.5] * 3)
    pixels = torch.rand(3, 3, 32, 32)
    copy = folded(classifier, pixels[:2])
    assert _norms(copy) == 0
    with torch.no_grad():
        assert torch.allclose(copy(pixels), classifier.eval()(pixels), atol=1e-4)
