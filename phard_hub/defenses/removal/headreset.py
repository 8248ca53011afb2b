"""Head reset: forget the head that came with the model, and learn another one on what the encoder says.

What is planted in the head alone leaves with it, whatever it is and however hard it is to see; fine-tuning leaves much
of it. The new head is a function of the encoder and of the defender's images. Where the encoder is, byte for byte, one
that the defender trusts, nothing that came with the head can have an influence on it.

The features of all images are computed once, and a logistic regression on them has one optimum, whatever it starts
from. Features are those of a model in evaluation mode, without augmentation.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.defenses.base import Defense, Hardened
from phard_hub.errors import InputError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.head import Encoder
from phard_hub.report.record import Phase
from phard_hub.settings import settings
from phard_hub.training.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ITERATIONS = 200
_NO_ANSWER = -1e4
"""A logit that half precision holds, too."""


@settings
class HeadReset(Defense):
    """A linear probe in place of the head: regularised logistic regression on the features.

    Attributes:
        decay: weight of half the squared norm of the head, for features of unit variance.
    """

    decay: PositiveFloat = 1e-3

    name = "head-reset"

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A copy with a new head; see `Defense.harden`.

        Raises:
            InputError: the model does not end in one linear layer, or a class that is looked at has no images.
        """
        started = time.perf_counter()
        made = classifier.clone().eval()
        encoder = Encoder(made)
        if missing := sorted(set(images.classes) - set(images.labels.tolist())):
            problem = f"There is no image of class {made.labels[missing[0]]!r}, so no head can be learned."
            raise InputError(problem, advice="Give images of all classes.")
        if len(images.classes) < made.num_classes and encoder.head.bias is None:
            problem = "The head has no bias, so classes without images cannot be left out."
            raise InputError(problem, advice="Give images of all classes.")
        probe(encoder.head, _features(encoder, images, job), images.labels.to(made.device), self.decay, images.classes)
        events = ["the head depends on the encoder and the images alone, not on the head that came with the model"]
        if without := made.num_classes - len(images.classes):
            events.append(f"{without} classes without images are no answers any more")
        phase = Phase(
            defense=self.name,
            settings=asdict(self),
            forgets=True,
            points_lost=None if guard is None else guard.look(made).points,
            events=tuple(events),
            sample_gradients=0,
            sample_forwards=len(images),
            seconds=time.perf_counter() - started,
        )
        return Hardened(made, (phase,))


@torch.no_grad()
def _features(encoder: Encoder, images: LabelledImages, job: Job) -> Tensor:
    """``(N, D)``, computed by each process for itself."""
    found: list[Tensor] = []
    done = 0
    with frozen(encoder.classifier):
        for pixels, _ in images.batches(encoder.classifier.device):
            found.append(encoder(pixels).double())
            done += len(pixels)
            job.part("resetting the head").show(done, len(images))
    return torch.cat(found)


def probe(head: nn.Linear, features: Tensor, labels: Tensor, decay: float, classes: Sequence[int] = ()) -> None:
    """Give a head the weights of the logistic regression on features ``(N, D)`` with labels ``(N,)``.

    Whatever its weights were, they are not looked at. Without a bias, features are not centred. Where only some classes
    are to be answers, the logits of the others are far below all of theirs.
    """
    chosen = torch.tensor(classes or range(len(head.weight)), device=labels.device)
    labels = torch.searchsorted(chosen, labels)
    mean = features.mean(0) if head.bias is not None else torch.zeros_like(features[0])
    spread = features.std(0, correction=0)
    spread = spread.where(spread > 1e-9, torch.ones_like(spread))
    standard = (features - mean) / spread
    weight = standard.new_zeros(len(chosen), head.weight.shape[1], requires_grad=True)
    bias = standard.new_zeros(len(weight), requires_grad=head.bias is not None)
    parameters = [weight] if head.bias is None else [weight, bias]
    optimizer = torch.optim.LBFGS(parameters, max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(standard @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
        value.backward()
        return value

    step: Callable[[Callable[[], Tensor]], Tensor] = optimizer.step
    step(loss)
    with torch.no_grad():
        scaled = weight / spread
        head.weight.zero_()[chosen] = scaled.to(head.weight)
        if head.bias is not None:
            head.bias.fill_(_NO_ANSWER)[chosen] = (bias - scaled @ mean).to(head.bias)
