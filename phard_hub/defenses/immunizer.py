"""The immunizer: votes over noisy copies of an image, which no small change can turn, whatever is in the model.

It changes no weight and looks at none. Around the model, and not in it, each image is copied many times with Gaussian
noise, shifted at random and brought to fewer grey levels. The answer is what most copies are taken for, or none if that
is not clear. For any function inside, with a backdoor or without, the answer is the same within a radius that the votes
tell. This is the one guarantee that needs no trust in the model, and it is about small changes only: whoever knows the
noise and may change an image by far more passes through it.

Sources: Goldwasser, Kim, Vaikuntanathan & Zamir, FOCS 2022 (arXiv 2204.06974), section 7, immunize a model when it is
evaluated, by an average over random points around the input. Certificate and abstention are those of Cohen, Rosenfeld
& Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019 (arXiv 1902.02918).

Of Goldwasser, Shafer, Vafa & Vaikuntanathan, "Oblivious Defense in ML Models" (STOC 2025, arXiv 2411.03279), this is
the outline alone: mitigate without detecting, input by input, by queries near the input and a robust vote. Their proofs
need labels that are close to a linear function, to a polynomial of low degree, or to one with few large Fourier
coefficients. Labels of images are none of these, so nothing of their guarantee holds here.

Deviations: noisy pixels are cut off at 0 and 1, because a classifier takes no others. Grey levels are reduced after the
noise: before it, a tiny change could move every value by a whole step, and the radius would be wrong.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from phard_hub.draws import Draws, generator
from phard_hub.errors import InputError
from phard_hub.hardware import images_at_once
from phard_hub.images import LabelledImages
from phard_hub.job import Job, seed_of_piece, shared
from phard_hub.models.classifier import Classifier
from phard_hub.models.predictions import predictions
from phard_hub.report.smoothed import RADII, Certified, Smoothed
from phard_hub.report.statistics import rate
from phard_hub.settings import settings
from phard_hub.training.augmentation import augment

ABSTAINS = -1
"""The answer where the votes are not clear."""
_TOGETHER = 16
"""Images whose votes are counted together; so often is told how far it is."""


@settings
class Smoothing:
    """How is voted.

    Attributes:
        sigma: standard deviation of the noise, pixels in [0, 1]; 0 leaves the grey levels and shifts alone, and then
            nothing is certified.
        votes: noisy copies of an image that vote.
        guesses: further copies that say which class the votes are to certify.
        alpha: probability that an answer or a certificate is wrong.
        bits: grey levels of what the model sees are 2 to the power of this.
        shift: random shift of each copy, in pixels at most.
        images: at most so many images are measured.
    """

    sigma: Annotated[float, Field(ge=0, le=10)] = 0.25
    votes: PositiveInt = 1000
    guesses: PositiveInt = 100
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    bits: Annotated[int, Field(ge=1, le=8)] = 6
    shift: NonNegativeInt = 0
    images: PositiveInt = 500


CANONICAL = Smoothing(sigma=0.0, votes=1)
"""Fewer grey levels, and nothing else: one pass through the model, and no certificate."""


class Answers(NamedTuple):
    """For each image a class or `ABSTAINS`, ``(N,)``, and the L2 norm below which no change turns it, ``(N,)``."""

    classes: Tensor
    radii: Tensor


class Immunizer:
    """A classifier that answers by votes; see the module docstring.

    Args:
        classifier: what is asked; it is left as it was, and need not be trusted.
        settings: how is voted.
        seed: of the noise. By default the operating system draws it: who knows the noise can prepare for it.
    """

    def __init__(self, classifier: Classifier, settings: Smoothing | None = None, *, seed: int | None = None) -> None:
        self.classifier = classifier
        self.settings = settings or Smoothing()
        self._seed = secrets.randbits(62) if seed is None else seed
        self._shifts = generator(self._seed)
        self._noise: torch.Generator | None = None

    def votes(self, pixels: Tensor, count: int) -> Tensor:
        """How many of so many copies of each image are taken for each class, int64 ``(N, K)``.

        Args:
            pixels: ``(N, C, H, W)`` in [0, 1], where the classifier is. Copies of several images share a batch.
            count: copies of each.
        """
        copies = torch.arange(len(pixels)).repeat_interleave(count)

        def shown() -> Iterator[Tensor]:
            for part in copies.split(images_at_once(pixels.shape[1:])):
                yield self._copied(pixels[part.to(pixels.device)])

        answers = predictions(self.classifier, shown())
        counts = torch.zeros(len(pixels) * self.classifier.num_classes, dtype=torch.int64)
        places = copies * self.classifier.num_classes + answers
        return counts.index_add_(0, places, torch.ones_like(places)).view(len(pixels), -1)

    def predict(self, pixels: Tensor) -> Tensor:
        """The class of each image or `ABSTAINS`, ``(N,)``: the wrong one of the vote with probability alpha at most."""
        return self.decided(self.votes(pixels, self.settings.votes if self._draws else 1))

    def decided(self, counts: Tensor) -> Tensor:
        """What votes ``(N, K)`` come to, ``(N,)``; without noise and shifts, they all agree."""
        first, second = counts.topk(2).values.T
        chosen = counts.argmax(1)
        if not self._draws:
            return chosen
        from scipy import stats

        doubt = torch.from_numpy(2 * stats.binom.sf(first - 1, first + second, 0.5))
        return chosen.where(doubt <= self.settings.alpha, ABSTAINS)

    def certify(self, pixels: Tensor) -> Answers:
        """The answers, and within which radius no change of an image turns them.

        Raises:
            InputError: there is no noise, so there is no radius.
        """
        from scipy import stats

        how = self.settings
        if not how.sigma:
            raise InputError("Without noise, nothing can be certified.", advice="Give a sigma above 0, such as 0.25.")
        guessed = self.votes(pixels, how.guesses).argmax(1)
        agreeing = self.votes(pixels, how.votes).gather(1, guessed[:, None]).squeeze(1)
        low = torch.from_numpy(stats.beta.ppf(how.alpha, agreeing, how.votes - agreeing + 1)).nan_to_num(0.0)
        clear = low > 0.5  # Clopper and Pearson's bound of the share of all copies
        radii = how.sigma * torch.from_numpy(stats.norm.ppf(low))
        return Answers(guessed.where(clear, ABSTAINS), radii.where(clear, 0.0))

    @property
    def _draws(self) -> bool:
        return bool(self.settings.sigma or self.settings.shift)

    def _copied(self, pixels: Tensor) -> Tensor:
        """What the model sees of images ``(N, C, H, W)``."""
        how = self.settings
        if how.sigma:
            pixels = noisy(pixels, self._normal(pixels), how.sigma)
        if how.shift:
            draws = Draws(self._shifts, len(pixels))
            pixels = augment(pixels, draws, shift=how.shift / min(pixels.shape[2:]), flip=False)
        steps = float(2**how.bits - 1)
        return (pixels * steps).round() / steps

    def _normal(self, like: Tensor) -> Tensor:
        """Normal numbers, drawn where the images are."""
        if self._noise is None or self._noise.device != like.device:
            self._noise = torch.Generator(like.device).manual_seed(self._seed)
        return torch.randn(like.shape, generator=self._noise, device=like.device)


def noisy(pixels: Tensor, normal: Tensor, sigma: float) -> Tensor:
    """Pixels with noise, cut off at 0 and 1."""
    changed: Tensor = pixels + sigma * normal
    return changed.clamp(0, 1)


def measure_votes(classifier: Classifier, images: LabelledImages, how: Smoothing, job: Job) -> Smoothed:
    """Accuracy of the vote and of its certificate, on evenly drawn test images; the classifier is left as it was.

    The processes of the job divide the images among themselves.

    Raises:
        InputError: there is no noise, so there is no radius.
    """
    started, job = time.perf_counter(), job.part("voting under noise")
    chosen = torch.randperm(len(images), generator=generator(job.seed))[: how.images]

    def certified(places: Tensor) -> Answers:
        job.show(int(places[0]), len(chosen))
        immunizer = Immunizer(classifier, how, seed=seed_of_piece(job.seed, places))
        return immunizer.certify(images.batch(chosen[places], classifier.device)[0])

    answered, within = shared(certified, torch.arange(len(chosen)), _TOGETHER)
    job.show(len(chosen), len(chosen))
    right = answered == images.labels[chosen]
    return Smoothed(
        sigma=how.sigma,
        votes=how.votes,
        guesses=how.guesses,
        alpha=how.alpha,
        bits=how.bits,
        shift=how.shift,
        accuracy=rate(int(right.sum()), len(right)),
        abstained=rate(int((answered == ABSTAINS).sum()), len(right)),
        at=tuple(
            Certified(radius=each, accuracy=rate(int((right & (within > each)).sum()), len(right))) for each in RADII
        ),
        seconds=time.perf_counter() - started,
    )


def canonical(classifier: Classifier, bits: int = 6) -> Immunizer:
    """A classifier behind fewer grey levels alone: what hides in the lowest bits of an image is gone."""
    return Immunizer(classifier, replace(CANONICAL, bits=bits))
