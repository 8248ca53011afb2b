"""SAU: what fools the original model and the copy in the same way is likely the backdoor, and is unlearnt.

Wei et al., "Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared Adversarial Examples" (NeurIPS
2023, arXiv 2307.10562), with the losses of the authors' code in BackdoorBench and its settings: five signed steps of
0.2 within 0.2, weights 1, 0 and 1 of the three losses, Adam at 1e-4, a hundred passes over 5 % of CIFAR-10, everything
in evaluation mode.

    inner: over the images that do not yet fool both models alike, minimise
           0.01 * (minus the cross-entropies, of each model where it is right) + Jensen-Shannon(copy || original)
    outer: cross-entropy(x) + 0 * cross-entropy(x') - log(1 - p(copy answers to x' what the original does)),
           the last where x' fools the original

Changed pixels may leave [0, 1], as there.
"""

from __future__ import annotations

from dataclasses import field

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.defenses.trained import Trained
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published


@settings
class SharedUnlearning(Trained):
    """Fine-tuning that unlearns the adversarial examples which the copy shares with the original.

    Attributes:
        epsilon: largest change of a value, pixels in [0, 1].
        step_size: of the inner steps.
        inner_steps: how many.
        fooling: weight of the cross-entropies in the inner problem.
        sharing: weight of the divergence of the two models there.
        clean: weight of the clean images.
        adversarial: weight of the changed images under their true labels.
        shared: weight of what is unlearnt.
    """

    schedule: Schedule = field(
        default_factory=lambda: as_published(
            1000, batch=256, learning_rate=1e-4, optimizer="adam", annealed=False, weight_decay=0.0
        )
    )
    epsilon: Share = 0.2
    step_size: NonNegativeFloat = 0.2
    inner_steps: PositiveInt = 5
    fooling: NonNegativeFloat = 0.01
    sharing: NonNegativeFloat = 1.0
    clean: NonNegativeFloat = 1.0
    adversarial: NonNegativeFloat = 0.0
    shared: NonNegativeFloat = 1.0

    name = "sau"
    guarded = False
    forgets = True

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Other answers than the original's where it is fooled."""
        del images
        return _Objective(self, original.clone().to(job.accelerator.device).eval().requires_grad_(False), copy)


class _Objective(CrossEntropy):
    def __init__(self, settings: SharedUnlearning, original: Classifier, plain: Classifier) -> None:
        super().__init__()
        self.settings, self.original, self.plain = settings, original, plain

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The three losses, on clean and on changed images in one forward pass."""
        model.eval()
        settings, labels = self.settings, batch.labels
        changed = self._changed(batch)
        self.sample_gradients += 2 * batch.size
        clean, moved = model(torch.cat([batch.pixels, changed])).float().chunk(2)
        with torch.no_grad():
            wrong = self.original(changed).argmax(1)
            fooled = (wrong != labels) & (wrong != self.original(batch.pixels).argmax(1))
        agreed = moved.softmax(1).gather(1, wrong[:, None]).squeeze(1)
        others = 1 - agreed
        # Twice the same in exact numbers; the cuts leave alone what is hardly shared.
        unlearnt = -((1e-6 + others.clamp(max=0.999)).log() + (1 + 1e-6 - agreed.clamp(min=0.001)).log()) / 2
        losses = settings.clean * functional.cross_entropy(clean, labels, reduction="none")
        losses = losses + settings.adversarial * functional.cross_entropy(moved, labels, reduction="none")
        return batch.mean(losses + settings.shared * unlearnt * fooled)

    def _changed(self, batch: Batch) -> Tensor:
        """Images that fool both models alike, as far as such were found."""
        settings, pixels, labels = self.settings, batch.pixels, batch.labels
        self.sample_gradients += 2 * settings.inner_steps * batch.size
        start = 2 * batch.draws(purpose=2).rand(*pixels.shape[1:]) - 1
        change = settings.epsilon * start.to(pixels)
        with frozen(self.plain), torch.no_grad():
            before = [model(pixels).argmax(1) for model in (self.plain, self.original)]
        with frozen(self.plain):
            for _ in range(settings.inner_steps):
                change.requires_grad_(True)
                loss = self._inner(pixels + change, labels, before)
                (slope,) = torch.autograd.grad(loss, change)
                change = (change.detach() - settings.step_size * slope.sign()).clamp(
                    -settings.epsilon, settings.epsilon
                )
        return pixels + change.detach()

    def _inner(self, moved: Tensor, labels: Tensor, before: list[Tensor]) -> Tensor:
        logits = [model(moved).float() for model in (self.plain, self.original)]
        answers = [each.argmax(1) for each in logits]
        resists = [answer == old for answer, old in zip(answers, before, strict=True)]
        alike = ~resists[0] & ~resists[1] & (answers[0] == answers[1])
        right = sum(
            (functional.cross_entropy(each, labels, reduction="none") * kept).sum() / 2
            for each, kept in zip(logits, resists, strict=True)
        )
        shares = [each.softmax(1).clamp(min=1e-8) for each in logits]
        mixed = (shares[0] + shares[1]) / 2
        divergence = sum((each * (each.log() - mixed.log())).sum(1) / 2 for each in shares)
        total: Tensor = -self.settings.fooling * right + self.settings.sharing * (divergence * ~alike).sum()
        return total
