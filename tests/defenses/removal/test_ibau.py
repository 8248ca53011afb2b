"""I-BAU: its gradient is that of the implicit function theorem, and its pattern fools the model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.nn import functional

from phard_hub.defenses.removal.ibau import ImplicitUnlearning, _Objective
from phard_hub.images import LabelledImages
from phard_hub.models.predictions import right_answers
from tests.defenses.planted import defenders, planted
from tests.small import Linear, as_classifier, batch, job, noise_images

SETTINGS = ImplicitUnlearning(portion=0.5, inner_rate=0.3)


def curved() -> tuple[_Objective, LabelledImages, Tensor]:
    """A linear classifier of four pixels, whose losses have second derivatives, with a pattern."""
    images = noise_images(8, 3, (1, 2, 2))
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    classifier = as_classifier(Linear(weight, torch.zeros(3)), 3, (1, 2, 2))
    made = _Objective(SETTINGS, classifier, images, job())
    made.pattern = torch.tensor([[[0.3, -0.2], [0.1, 0.4]]])
    return made, images, weight


def test_the_gradient_is_that_of_the_implicit_function_theorem() -> None:
    """Written out with whole matrices of derivatives, which only a tiny network has room for."""
    made, images, weight = curved()
    some, first = batch(images, 24, step=1), batch(images, 24).batches[0]
    loss = made.loss(made.plain, some)
    found = torch.autograd.grad(loss, made.plain.network.get_parameter("weight"))[0]

    def outer(weight: Tensor, pattern: Tensor) -> Tensor:
        changed = some.pixels.flatten(1) + (torch.arange(24) < 12)[:, None] * pattern
        return functional.cross_entropy(changed @ weight.T, some.labels)

    def step(weight: Tensor, pattern: Tensor) -> Tensor:
        def inner(pattern: Tensor) -> Tensor:
            logits = (first.pixels.flatten(1) + pattern) @ weight.T
            return SETTINGS.price * pattern.square().sum() - functional.cross_entropy(logits, first.labels)

        (slope,) = torch.autograd.grad(inner(pattern), pattern, create_graph=True)
        return pattern - SETTINGS.inner_rate * slope

    pattern = made.pattern.flatten()
    direct, wanted = jacobian(outer, (weight, pattern))
    of_weight, of_pattern = jacobian(step, (weight, pattern))
    answer = torch.zeros(4)
    for _ in range(SETTINGS.iterations):
        answer = answer @ of_pattern + wanted
    expected = direct + torch.einsum("p,pkw->kw", answer, of_weight)
    assert torch.allclose(found, expected, atol=1e-5)
    assert (expected - direct).abs().max() > 0.01


def test_a_pass_makes_a_pattern_that_fools_the_model() -> None:
    images, classifier = defenders()[0], planted()
    made = _Objective(ImplicitUnlearning(), classifier.clone().eval(), images, job())
    some = batch(images, 100)
    made.loss(made.plain, some)
    assert made.pattern.abs().max() > 0
    fooled = made.plain(some.pixels + made.pattern).argmax(1) != some.labels
    assert fooled.float().mean() > 0.3
    assert right_answers(classifier, images).mean() > 0.95


def test_the_pattern_stays_for_a_round() -> None:
    images = defenders()[0]
    made = _Objective(ImplicitUnlearning(), planted().clone().eval(), images, job())
    assert made.round == -(-len(images) // 100)
    made.loss(made.plain, batch(images, 100))
    first = made.pattern.clone()
    made.loss(made.plain, batch(images, 100, step=1))
    assert torch.equal(made.pattern, first)
