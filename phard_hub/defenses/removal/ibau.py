"""I-BAU: one pattern that fools the model is unlearnt, and the model's step knows how the pattern would answer it.

Zeng et al., "Adversarial Unlearning of Backdoors via Implicit Hypergradient" (ICLR 2022, arXiv 2110.03735), with the
settings of YiZeng623/I-BAU: a pass of SGD at rate 10 makes the pattern, for the model's own answers, with 1e-3 times
its square as the price; the model then learns for a pass by Adam at 1e-3, on batches of 100 of which one image carries
the pattern; five rounds of that, in evaluation mode, and no change is cut off.

The gradient of the model is that of the outer loss and, by the implicit function theorem, what the pattern would change
in answer: with Phi one step of the inner problem, the solution v of ``v = v dPhi/dpattern + d(outer)/dpattern`` by five
iterations gives ``d(outer)/dweights + v dPhi/dweights``. Both together are the gradient of
``outer + <v, Phi(pattern, weights)>``, which is what the training loop is handed.

Deviations: the authors unlearn on the first 5,000 test images and stop by looking at the rest of these; here it is the
defender's training images. The first batch of a round is that on which Phi is taken, theirs is the same in all rounds.
Images are shifted and mirrored, and a product with the inner problem's second derivative is counted as one gradient.
BackdoorBench has Adam at 1e-4.
"""

from __future__ import annotations

from dataclasses import field

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from phard_hub.defenses.trained import Trained
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published


@settings
class ImplicitUnlearning(Trained):
    """Unlearning of a universal pattern by implicit hypergradients.

    Attributes:
        pattern_rate: learning rate of the pattern.
        price: of the pattern's squared length.
        portion: of the images of a batch that carry the pattern; at least one.
        iterations: of the fixed point.
        inner_rate: of the inner step that the fixed point is of.
    """

    schedule: Schedule = field(
        default_factory=lambda: as_published(
            125, batch=100, learning_rate=1e-3, optimizer="adam", annealed=False, weight_decay=0.0
        )
    )
    pattern_rate: NonNegativeFloat = 10.0
    price: PositiveFloat = 1e-3
    portion: Share = 0.01
    iterations: NonNegativeInt = 5
    inner_rate: PositiveFloat = 0.1

    name = "i-bau"
    guarded = False
    forgets = True

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers under the pattern of the round."""
        del original
        return _Objective(self, copy, images, job)


class _Objective(CrossEntropy):
    def __init__(self, settings: ImplicitUnlearning, plain: Classifier, images: LabelledImages, job: Job) -> None:
        super().__init__()
        self.settings, self.plain, self.job = settings, plain, job
        self.round = -(-len(images) // settings.schedule.batch)  # steps
        self.pattern = torch.zeros(images.shape, device=job.accelerator.device)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The outer loss, and what the pattern would answer."""
        model.eval()
        if batch.step % self.round == 0:
            self._make_pattern(batch)
        settings, pattern = self.settings, self.pattern.clone().requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):  # the only attention that has second derivatives
            outer = self._outer(model, batch, pattern)
            (wanted,) = torch.autograd.grad(outer, pattern, retain_graph=True)
            wanted = self._over_all(wanted)
            inner = self._inner(batch.batches[batch.step - batch.step % self.round], pattern, by_labels=True)
            (slope,) = torch.autograd.grad(inner, pattern, create_graph=True)
            # The part that does not depend on the weights is the same whatever v is, and is left out of Phi.
            answer = -settings.inner_rate * slope
            implicit = torch.zeros_like(wanted)
            for _ in range(settings.iterations):
                (product,) = torch.autograd.grad(answer, pattern, implicit, retain_graph=True)
                implicit = implicit + self._over_all(product) + wanted
            return outer + (implicit.detach() * answer).sum()

    def _outer(self, model: nn.Module, batch: Batch, pattern: Tensor) -> Tensor:
        """Cross-entropy on the batch, of which a few images carry the pattern."""
        self.sample_gradients += (2 + self.settings.iterations) * batch.size
        chosen = batch.places < max(1, int(self.settings.portion * batch.size))
        logits = model(batch.pixels + chosen[:, None, None, None] * pattern).float()
        return batch.mean(functional.cross_entropy(logits, batch.labels, reduction="none"))

    def _inner(self, batch: Batch, pattern: Tensor, *, by_labels: bool) -> Tensor:
        """What the pattern minimises: it fools the model, and is short."""
        labels = batch.labels
        if not by_labels:
            with torch.no_grad():
                labels = self.plain(batch.pixels).argmax(1)
        losses = functional.cross_entropy(self.plain(batch.pixels + pattern).float(), labels, reduction="none")
        return self.settings.price * pattern.square().sum() - batch.mean(losses)

    def _make_pattern(self, batch: Batch) -> None:
        """A new pattern, by one pass over the images."""
        pattern = torch.zeros_like(self.pattern)
        for step in range(batch.step, batch.step + self.round):
            images = batch.batches[step]
            self.sample_gradients += images.size
            self.sample_forwards += images.size
            pattern = pattern.detach().requires_grad_(True)
            with frozen(self.plain):
                (slope,) = torch.autograd.grad(self._inner(images, pattern, by_labels=False), pattern)
            pattern = pattern.detach() - self.settings.pattern_rate * self._over_all(slope)
        self.pattern = pattern.detach()

    def _over_all(self, gradient: Tensor) -> Tensor:
        """The same in all processes, of which each knows its images."""
        mean: Tensor = self.job.accelerator.reduce(gradient, "mean")
        return mean

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """The counters and the pattern."""
        return {**super().state_dict(), "sample_forwards": self.sample_forwards, "pattern": self.pattern}

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self.sample_forwards = int(state["sample_forwards"])
        self.pattern = torch.as_tensor(state["pattern"]).to(self.pattern)
