"""Neural Cleanse: a class with a far smaller trigger than the others is taken for the target, and unlearns it.

Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks" (S&P 2019), with the
settings of BackdoorBench: a trigger for each class, from all others to it, by Adam at 0.1 and a price from 1e-3 that is
doubled after five successes of 98 % in a row. A class whose mask is smaller than the median by more than two median
deviations (times 1.4826) is an outlier. Its trigger is stamped on a fifth of the images, which keep their labels, while
the model is fine-tuned for a hundred passes over 5 % of CIFAR-10. Where no class is an outlier, nothing is changed, as
there.

Deviations: each step of the search is on the same images of all classes, and there are as many steps as their 80 passes
have; a state keeps the fine-tuning, and the triggers are searched again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from phard_hub.defenses.base import Hardened
from phard_hub.defenses.inversion import Inversion, Stamps
from phard_hub.defenses.trained import Scheduled
from phard_hub.draws import generator
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.settings import Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.guard import Guard
from phard_hub.training.loop import Course
from phard_hub.training.objectives import CrossEntropy
from phard_hub.training.schedule import Schedule, as_published

_NORMAL = 1.4826
"""Standard deviations in a median deviation, of normal numbers."""


@settings
class NeuralCleanse(Scheduled):
    """Fine-tuning under the triggers of the classes whose triggers are outliers.

    Attributes:
        search: how the triggers are inverted.
        searched_on: images at most that they are inverted on.
        anomaly: median deviations below the median from which a class is an outlier.
        stamped: share of the images that carry a trigger.
    """

    schedule: Schedule = field(default_factory=lambda: as_published(1000, batch=256, learning_rate=0.01))
    search: Inversion = field(
        default_factory=lambda: Inversion(inner_steps=800, bound=0.98, factor=2.0, patience=5, jitter=0.0)
    )
    searched_on: PositiveInt = 256
    anomaly: NonNegativeFloat = 2.0
    stamped: Share = 0.2

    name = "neural-cleanse"
    guarded = False
    forgets = True

    def harden(self, classifier: Classifier, images: LabelledImages, job: Job, guard: Guard | None = None) -> Hardened:
        """A copy that unlearnt what was found; see `Defense.harden`."""
        if not self.schedule.steps:
            return Hardened(classifier.clone().eval(), (self.phase(Course(classifier), guard),))
        found = self._triggers(classifier.clone().to(job.accelerator.device), images, job)
        suspects = outliers(found.stamps.size, self.anomaly)
        what = f"{len(suspects)} of {images.num_classes} classes are outliers: {', '.join(map(str, suspects.tolist()))}"
        if not len(suspects):
            course = Course(
                classifier.clone().eval(),
                events=[f"no class of {images.num_classes} is an outlier: nothing was changed"],
            )
            made = Hardened(course.classifier, (self.phase(course, guard),))
        else:
            made = self.trained(
                classifier, images, job, guard, lambda _copy: _Objective(self.stamped, found.stamps.of(suspects))
            )
        (phase,) = made.phases
        update = {
            "events": (what, *phase.events) if len(suspects) else phase.events,
            "sample_gradients": phase.sample_gradients + found.sample_gradients,
        }
        return Hardened(made.classifier, (phase.model_copy(update=update),))

    def _triggers(self, classifier: Classifier, images: LabelledImages, job: Job) -> _Found:
        """A trigger for each class; classes without other images to search on do not exist."""
        random, device = generator(job.seed), job.accelerator.device
        chosen = torch.randperm(len(images), generator=random)[: self.searched_on]
        pixels, labels = images.batch(chosen, device)
        every, cost = [], 0
        for target in range(images.num_classes):
            others = pixels[labels != target]
            start = Stamps.drawn(1, images.shape, random, device)
            which, targets = (
                torch.zeros(len(others), dtype=torch.long, device=device),
                torch.tensor([target], device=device),
            )
            every.append(self.search.invert(classifier, others, which, targets, start, random))
            cost += self.search.inner_steps * len(others)
            job.part("searching triggers").show(target + 1, images.num_classes)
        return _Found(
            Stamps(*(torch.cat([getattr(each, name) for each in every]) for name in ("mask", "pattern", "size"))), cost
        )


@dataclass(frozen=True)
class _Found:
    """Triggers, and the images that gradients were taken of for them."""

    stamps: Stamps
    sample_gradients: int


def outliers(sizes: Tensor, anomaly: float) -> Tensor:
    """The numbers of the sizes that are smaller than the median by more than so many median deviations."""
    below = sizes.median() - sizes
    deviation = _NORMAL * below.abs().median()
    return (below > anomaly * deviation).nonzero().flatten()


class _Objective(CrossEntropy):
    def __init__(self, share: float, stamps: Stamps) -> None:
        super().__init__()
        self.share, self.stamps = share, stamps

    def shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch, whose first images carry a trigger each."""
        part = batch.first(round(self.share * batch.size))
        which = part.draws(purpose=2).integers(len(self.stamps.size)).to(part.labels)
        stamped = batch.places < round(self.share * batch.size)
        pixels = batch.pixels.clone()
        pixels[stamped] = self.stamps(part.pixels, which)
        return pixels, batch.labels
