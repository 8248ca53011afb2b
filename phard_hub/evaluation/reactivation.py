"""Re-activation: how much of a backdoor lies dormant in a model whose attack success has fallen.

A model can refuse a trigger and still be a step away from answering it. Two ways to re-activate it are measured:
fine-tuning on a few poisoned images, as in Min et al., "Uncovering, Explaining, and Mitigating the Superficial
Safety of Backdoor Defense" (NeurIPS 2024, arXiv 2410.09838), and one small change of all images added to the
trigger, as in Zhu et al., "Breaking the False Sense of Security in Backdoor Defense through Re-Activation
Attack" (NeurIPS 2024, arXiv 2405.16134), their white-box attack. Clean models give in to both, too, so the same
should be measured on one. Schedules and bounds here are our own.
"""

from __future__ import annotations

import math
from dataclasses import field, replace

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn import functional

from phard_hub.attacks import Attack
from phard_hub.attacks.poisoning import poisonable, train_poisoned
from phard_hub.errors import ImagesError
from phard_hub.evaluation.threats import Threat, attack_outcome, evaluate
from phard_hub.hardware import fast_autocast
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.report.trial import Perturbed, Relearned
from phard_hub.settings import Share, settings
from phard_hub.training.schedule import Schedule


@settings
class Relearning:
    """Fine-tune a copy on images of which few carry the trigger, and see whether the backdoor is back.

    Attributes:
        steps: lengths of the fine-tunings, each from the start and with a whole schedule of its own.
        images: how many images carry the trigger; one of them is in each batch.
        seeds: how often each is done, with other images and batches.
        schedule: of each fine-tuning, except for its steps.
    """

    steps: tuple[PositiveInt, ...] = (20, 100, 500)
    images: PositiveInt = 5
    seeds: PositiveInt = 3
    schedule: Schedule = field(default_factory=lambda: Schedule(learning_rate=0.01))

    def measure(
        self,
        classifier: Classifier,
        images: LabelledImages,
        test: LabelledImages,
        attack: Attack,
        target: int,
        job: Job,
    ) -> tuple[Relearned, ...]:
        """Success and accuracy after each number of steps; the classifier is left as it was.

        Args:
            classifier: what is fine-tuned.
            images: what it is fine-tuned on.
            test: what it is judged on.
            attack: with its key, whose recipe poisons the images.
            target: the class that its trigger produces.
            job: its seed is that of the first fine-tuning.

        Raises:
            ImagesError: there is no image that the attack would put its trigger on.
        """
        threat = Threat(name=attack.name, trigger=attack, target=target)
        found = []
        for steps in self.steps:
            schedule = replace(self.schedule, steps=steps)
            seen = []
            for seed in range(job.seed, job.seed + self.seeds):
                few = poisonable(images, attack, target, self.images, seed)
                again = replace(job, seed=seed, folder=None)
                tuned = train_poisoned(classifier, images, attack, target, again, few=few, schedule=schedule)
                seen.append(evaluate(tuned, test, [threat]))
            found.append(
                Relearned(
                    steps=steps,
                    poisoned=self.images,
                    success=tuple(each.attacks[0].success for each in seen),
                    accuracy=tuple(each.accuracy for each in seen),
                )
            )
        return tuple(found)


@settings
class Perturbing:
    """Search one small change, the same for all images, that makes the trigger work.

    Attributes:
        epsilon: largest change of a pixel value, pixels in [0, 1].
        steps: taken along the sign of the gradient's running mean, of 2.5 ``epsilon / steps`` at first, and then
            falling along a quarter of a cosine.
        batch: stamped images in a step.
    """

    epsilon: Share = 0.05
    steps: NonNegativeInt = 100
    batch: PositiveInt = 64

    def measure(
        self, classifier: Classifier, images: LabelledImages, test: LabelledImages, threat: Threat, seed: int = 0
    ) -> Perturbed:
        """Fit the change on ``images`` and judge it on ``test``; the classifier is left as it was.

        Raises:
            ImagesError: all images are of the target class.
        """
        change = self.search(classifier, images, threat, seed)
        together = replace(threat, trigger=lambda pixels: (threat.trigger(pixels) + change).clamp(0, 1))
        return Perturbed(epsilon=self.epsilon, success=attack_outcome(classifier, test, together).success)

    def search(self, classifier: Classifier, images: LabelledImages, threat: Threat, seed: int = 0) -> Tensor:
        """The change ``(C, H, W)``, within ``epsilon``."""
        others = images.take((images.labels != threat.target).nonzero().flatten())
        if len(others) == 0:
            raise ImagesError(f"All images of {images.source} are of the target class.", advice="Give others too.")
        random = torch.Generator().manual_seed(seed)
        change = torch.zeros(images.shape, device=classifier.device)
        running = torch.zeros_like(change)
        with frozen(classifier):
            for step in range(self.steps):
                numbers = torch.randint(len(others), (self.batch,), generator=random)
                pixels, _ = others.batch(numbers, classifier.device)
                with torch.no_grad():
                    stamped = threat.trigger(pixels)
                change.requires_grad_(True)
                with fast_autocast(classifier.device):
                    logits = classifier((stamped + change).clamp(0, 1))
                wanted = torch.full((len(logits),), threat.target, device=classifier.device)
                (gradient,) = torch.autograd.grad(functional.cross_entropy(logits.float(), wanted), change)
                running = 0.9 * running + gradient / gradient.norm().clamp(min=1e-12)
                pace = 2.5 * self.epsilon / self.steps * math.cos(math.pi / 2 * step / self.steps)
                change = (change.detach() - pace * running.sign()).clamp(-self.epsilon, self.epsilon)
        return change
