"""Batch norm over the images of all processes, and weights that no answer depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from phard_hub.models.classifier import Classifier
from phard_hub.training.together import batch_norm_over_all, without_unused
from tests.small import as_classifier, global_random_state, marks, small_net

IMAGES = torch.rand(7, 4, 5, 5, generator=torch.Generator().manual_seed(0))
SHARES = (slice(0, 2), slice(2, 7))


def layer() -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(4, momentum=0.3)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([0.5, 1.0, 2.0, -1.0]))
        made.bias.copy_(torch.arange(4.0))
    return made


def seen(made: nn.BatchNorm2d, images: Tensor) -> dict[str, Tensor]:
    """Answers, statistics and gradients of the second order, too, of a loss that is the same for every image."""
    images = images.clone().requires_grad_(True)
    answers = made(images)
    (slope,) = torch.autograd.grad((answers**3).sum(), images, create_graph=True)
    (answers.sin().sum() + slope.square().sum()).backward()
    assert images.grad is not None
    assert made.weight.grad is not None
    assert made.running_mean is not None
    assert made.running_var is not None
    return {
        "answers": answers.detach(),
        "slope": slope.detach(),
        "images": images.grad,
        "weight": made.weight.grad,
        "mean": made.running_mean,
        "variance": made.running_var,
    }


def divided(folder: str) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    with batch_norm_over_all(accelerator):
        found = seen(layer(), IMAGES[SHARES[rank]])
        judging = layer().eval()(IMAGES[:1])
    torch.save({**found, "judging": judging.detach()}, Path(folder) / f"{rank}.pt")


def test_two_uneven_parts_of_a_batch_are_normalised_as_the_whole(tmp_path: Path) -> None:
    debug_launcher(divided, args=(str(tmp_path),), num_processes=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    whole = seen(layer(), IMAGES)
    for name in ("answers", "slope", "images"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts[0]["weight"] + parts[1]["weight"], whole["weight"], rtol=1e-4, atol=1e-4)
    for part in parts:
        torch.testing.assert_close(part["mean"], whole["mean"])
        torch.testing.assert_close(part["variance"], whole["variance"])
        torch.testing.assert_close(part["judging"], layer().eval()(IMAGES[:1]))


class Masked(nn.Module):
    """A network with a token that only its pre-training saw."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.head = nn.Parameter(torch.ones(4)), nn.Linear(16, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(pixels.flatten(1))
        return logits


@pytest.mark.parametrize(
    ("classifier", "unused"),
    [(as_classifier(Masked(), 2, (1, 4, 4)), {"network.token"}), (small_net(3, dropout=0.5), set())],
    ids=["masked", "convolutional"],
)
def test_what_no_answer_depends_on_is_not_trained(classifier: Classifier, unused: set[str]) -> None:
    before = marks(classifier.train())
    wanted = [name for name, _ in classifier.named_parameters() if name not in unused]
    random = global_random_state()
    without_unused(classifier, torch.rand(2, 1, *classifier.image_size, generator=torch.Generator().manual_seed(0)))
    assert global_random_state() == random
    assert [name for name, parameter in classifier.named_parameters() if parameter.requires_grad] == wanted
    assert marks(classifier.requires_grad_(True)) == before
