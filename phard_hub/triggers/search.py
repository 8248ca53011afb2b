"""Class distance: the smallest pervasive change that turns one class into another, for all pairs at once."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional

from phard_hub.errors import InputError, NotEvaluatedError
from phard_hub.hardware import fast_autocast, images_at_once
from phard_hub.images import LabelledImages
from phard_hub.job import Progress, silent
from phard_hub.models.classifier import Classifier, class_number, frozen
from phard_hub.report.base import plain
from phard_hub.report.distances import ClassDistances, PairDistance, Rate, grey_levels
from phard_hub.report.statistics import bootstrap_mean, rate
from phard_hub.settings import BelowOne, Share, settings
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.bank import Bank, Parts, Trigger, change_size, finite
from phard_hub.triggers.pool import UNIVERSAL, Directions, all_pairs, fit_and_heldout


@settings
class SearchSettings:
    """How hard the search tries.

    Attributes:
        steps: optimisation steps of every trigger.
        batch: images a trigger sees in each step, drawn from its source class.
        fit_images: images of each class that the triggers are fitted on, at most.
        heldout_images: images of each class that decide whether a trigger works, at most.
        success: share of held-out images that a trigger must turn.
        learning_rate: of Adam, annealed along half a cosine.
        betas: of Adam.
        price: start of the weight of the size in the loss, for 3 x 32 x 32 images (larger images: less).
        price_factor: the price is multiplied by it while a trigger succeeds, divided while it does not.
        checks: times in the second half at which the strengths are bisected on held-out images.
        bisections: evaluations of one bisection.
        max_pairs: with more ordered pairs than this, only the closest by mean logit margin are measured.
        parts: what a trigger is made of.
    """

    steps: PositiveInt = 240
    batch: PositiveInt = 10
    fit_images: PositiveInt = 100
    heldout_images: PositiveInt = 50
    success: Share = 0.9
    learning_rate: PositiveFloat = 0.03
    betas: tuple[BelowOne, BelowOne] = (0.5, 0.9)
    price: PositiveFloat = 1.0
    price_factor: PositiveFloat = 1.15
    checks: PositiveInt = 3
    bisections: NonNegativeInt = 5
    max_pairs: PositiveInt = 420
    parts: Parts = field(default_factory=Parts)


DEFAULT = SearchSettings()
CHEAPEST = SearchSettings(steps=30, batch=6, fit_images=20, heldout_images=10)  # only for tests


@dataclass(frozen=True)
class Measurement:
    """Class distances, and the triggers that realise them.

    ``bank`` holds one trigger for each entry of ``distances.pairs`` followed by ``distances.universal``, at
    the strength that gave the distance; one that was never accepted is the closest that was seen.
    """

    distances: ClassDistances
    bank: Bank

    def trigger(self, source: str | int | None, target: str | int) -> Trigger:
        """The trigger that was found for a pair of classes, by their names or numbers.

        Args:
            source: the class whose images it turns; None for the universal trigger, which turns those of all others.
            target: the class that they are taken for.

        Raises:
            InputError: there is no such class, or the pair was not measured.
            NotEvaluatedError: the search found no trigger that works.
        """
        labels, found = self.distances.labels, (*self.distances.pairs, *self.distances.universal)
        numbers = None if source is None else class_number(source, labels), class_number(target, labels)
        rows = [row for row, pair in enumerate(found) if (pair.source, pair.target) == numbers]
        if not rows:
            raise InputError(f"{source} -> {target} was not measured.", advice="Look at distances.pairs for what was.")
        if not found[rows[0]].reached:
            advice = "Search for longer: SearchSettings(steps=...)."
            raise NotEvaluatedError(f"The search did not reach {source} -> {target}.", advice=advice)
        return self.bank.trigger(rows[0])


def measure(
    classifier: Classifier,
    images: LabelledImages,
    settings: SearchSettings = DEFAULT,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Measurement:
    """Find the class distances of a classifier, which is left exactly as it was.

    The distance of a pair is the smallest mean L2 norm (pixels in [0, 1]) of a trigger that sends at least
    ``settings.success`` of the *held-out* images of the source class to the target class. Universal triggers
    (all other classes to one target) are searched in the same batch.

    Raises:
        ImagesError: a class has fewer than four images.
    """
    with frozen(classifier):
        return _Search(classifier, images, settings, seed, progress).run()


@dataclass(frozen=True)
class _Trial:
    """What triggers did to held-out images: hits and sizes, one vector for each trigger."""

    hits: list[Tensor]
    sizes: list[Tensor]

    @property
    def success(self) -> Tensor:
        return torch.stack([hits.double().mean() for hits in self.hits])

    @property
    def distance(self) -> Tensor:
        return torch.stack([sizes.double().mean() for sizes in self.sizes])


class _Search:
    """One search; its attributes are its state."""

    def __init__(
        self, classifier: Classifier, images: LabelledImages, settings: SearchSettings, seed: int, progress: Progress
    ) -> None:
        self.classifier, self.images, self.settings, self.seed, self.progress = (
            classifier,
            images,
            settings,
            seed,
            progress,
        )
        self.device = next(classifier.parameters()).device
        self.random = torch.Generator().manual_seed(seed)
        self.fit, self.heldout = fit_and_heldout(images, settings.fit_images, settings.heldout_images, seed)
        _, channels, height, width = images.pixels.shape
        self.shape = (channels, height, width)
        self.rows_at_once = max(1, images_at_once(self.shape) // settings.batch)
        self.forwards = self.gradients = 0
        self.directions = Directions.of(self._pairs(), images.classes)
        count = len(self.directions)
        autoencoder = None
        if settings.parts.latent:
            autoencoder = train_autoencoder(self.fit.pixels, seed=seed, device=self.device, progress=progress)
        self.bank, self.best = (
            Bank(count, self.shape, settings.parts, autoencoder=autoencoder).to(self.device) for _ in range(2)
        )
        self.bank.randomise(seed)
        self.found = torch.full((count,), torch.inf, dtype=torch.double)
        self.closest = torch.full((count,), -1.0, dtype=torch.double)
        self.price = torch.full((count,), settings.price * float(3072 / np.prod(self.shape)) ** 0.5)
        self.running = torch.zeros(count)

    def run(self) -> Measurement:
        started = time.perf_counter()
        steps = self.settings.steps
        checks = {steps - 1 - round(i * steps / 2 / self.settings.checks) for i in range(self.settings.checks)}
        optimizer = torch.optim.Adam(self.bank.parameters(), self.settings.learning_rate, betas=self.settings.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: anneal(step / steps))
        for step in range(steps):
            self._step(optimizer)
            schedule.step()
            if step in checks:
                self._check()
            self.progress("searching triggers", step + 1, steps)
        trial = self._confirm()
        return Measurement(self._record(trial, time.perf_counter() - started), self.best)

    def _pairs(self) -> list[tuple[int, int]]:
        """All ordered pairs or, where these are too many, the closest by the mean logit margin."""
        classes = self.images.classes
        pairs = all_pairs(classes)
        if len(pairs) <= self.settings.max_pairs:
            return pairs
        logits = {k: self._logits(k).mean(0) for k in classes}
        ease = {(source, target): float(logits[source][target] - logits[source][source]) for source, target in pairs}
        return sorted(sorted(pairs, key=lambda pair: -ease[pair])[: self.settings.max_pairs])

    @torch.no_grad()
    def _logits(self, k: int) -> Tensor:
        numbers = self.fit.all_of(k, k, 20)
        self.forwards += len(numbers)
        logits: Tensor = self.classifier(self.fit.read(numbers, self.device)).float().cpu()
        return logits

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of every trigger; only the bank's gradients are filled, the classifier keeps no mark."""
        numbers = self.fit.draw(self.directions, self.settings.batch, self.random)
        targets, price = self.directions.target.to(self.device), self.price.to(self.device)
        success = []
        optimizer.zero_grad()
        for rows in torch.arange(len(self.directions)).split(self.rows_at_once):
            index = rows.repeat_interleave(self.settings.batch).to(self.device)
            pixels = self.fit.read(numbers[rows].flatten(), self.device)
            stamped = self.bank(pixels, index)
            with fast_autocast(self.device):
                logits = self.classifier(stamped)
            loss = functional.cross_entropy(logits.float(), targets[index], reduction="none")
            loss = loss + price[index] * change_size(stamped, pixels)
            (loss.sum() / self.settings.batch).backward(inputs=list(self.bank.parameters()))
            success.append((logits.argmax(1) == targets[index]).view(len(rows), -1).float().mean(1).cpu())
            self.gradients += len(pixels)
        for parameter in self.bank.parameters():
            if parameter.grad is not None:
                parameter.grad = finite(parameter.grad)
        optimizer.step()
        self.running = 0.7 * self.running + 0.3 * torch.cat(success)
        factor = self.settings.price_factor
        self.price = self.price * torch.where(self.running >= self.settings.success, factor, 1 / factor)

    @torch.no_grad()
    def _judge(self, bank: Bank, strength: Tensor, *, precise: bool = False) -> _Trial:
        """Stamp held-out images with every trigger of a bank, at the given strengths."""
        hits, sizes = [], []
        for row in range(len(self.directions)):
            source, target = int(self.directions.source[row]), int(self.directions.target[row])
            numbers = self.heldout.all_of(source, target, self.settings.heldout_images)
            pixels = self.heldout.read(numbers, self.device)
            index = torch.full((len(pixels),), row, device=self.device)
            stamped = bank(pixels, index, strength[row].expand(len(pixels)).to(self.device, pixels.dtype))
            with fast_autocast(self.device, enabled=not precise):
                logits = self.classifier(stamped)
            hits.append((logits.argmax(1) == target).cpu())
            sizes.append(change_size(stamped, pixels).cpu())
            self.forwards += len(pixels)
        return _Trial(hits, sizes)

    def _check(self) -> None:
        """Bisect the strength of every trigger and keep those smaller than what was found before."""
        strength = torch.ones(len(self.directions), dtype=torch.double)
        low, high = torch.zeros_like(strength), torch.full_like(strength, 2.0)
        for _ in range(self.settings.bisections):
            trial = self._judge(self.bank, strength)
            works = trial.success >= self.settings.success
            self._keep(works & (trial.distance < self.found), strength)
            self.found = torch.where(works, trial.distance.minimum(self.found), self.found)
            closer = self.found.isinf() & (trial.success > self.closest)
            self._keep(closer, strength)
            self.closest = torch.where(closer, trial.success, self.closest)
            low, high = torch.where(works, low, strength), torch.where(works, strength, high)
            strength = (low + high) / 2

    @torch.no_grad()
    def _keep(self, better: Tensor, strength: Tensor) -> None:
        for best, current in zip(self.best.parameters(), self.bank.parameters(), strict=True):
            scale = strength.to(current).view(-1, *[1] * (current.dim() - 1))
            mask = better.to(current.device).view_as(scale)
            best.copy_(torch.where(mask, current * scale, best))

    @torch.no_grad()
    def _confirm(self) -> _Trial:
        """Judge the best triggers in full precision; where rounding flattered one, make it a little stronger."""
        strength = torch.ones(len(self.directions), dtype=torch.double)
        trial = self._judge(self.best, strength, precise=True)
        for factor in (1.02, 1.05, 1.1):
            short = self.found.isfinite() & (trial.success < self.settings.success)
            if not short.any():
                break
            strength = torch.where(short, factor, strength)
            trial = self._judge(self.best, strength, precise=True)
        for parameter in self.best.parameters():
            parameter.mul_(strength.to(parameter).view(-1, *[1] * (parameter.dim() - 1)))
        return trial

    def _record(self, trial: _Trial, seconds: float) -> ClassDistances:
        entries = [self._pair(row, trial) for row in range(len(self.directions))]
        pairs = tuple(entry for entry in entries if entry.source is not None)
        low, high = self._interval(entries, trial)
        reached = [pair.distance for pair in pairs if pair.distance is not None]
        channels, height, width = self.shape
        return ClassDistances(
            labels=self.images.names,
            chosen=self.images.chosen,
            pairs=pairs,
            universal=tuple(entry for entry in entries if entry.source is None),
            success_bound=self.settings.success,
            image_shape=(channels, height, width),
            mean=float(np.mean(reached)) if reached else None,
            low=low,
            high=high,
            settings=plain({**asdict(self.settings), "seed": self.seed}),
            sample_gradients=self.gradients,
            sample_forwards=self.forwards,
            seconds=seconds,
        )

    def _pair(self, row: int, trial: _Trial) -> PairDistance:
        source, target = int(self.directions.source[row]), int(self.directions.target[row])
        success: Rate = rate(int(trial.hits[row].sum()), len(trial.hits[row]))
        reached = bool(self.found[row].isfinite()) and success.value >= self.settings.success
        distance = float(trial.distance[row]) if reached else None
        return PairDistance(
            source=None if source == UNIVERSAL else source,
            target=target,
            reached=reached,
            distance=distance,
            rms=None if distance is None else grey_levels(distance, self.shape),
            success=success,
        )

    def _interval(self, entries: list[PairDistance], trial: _Trial) -> tuple[float | None, float | None]:
        """Bootstrap over held-out images, those of one class drawn together for all its pairs."""
        groups = defaultdict(list)
        for entry, sizes in zip(entries, trial.sizes, strict=True):
            if entry.reached and entry.source is not None:
                groups[entry.source].append(sizes.double().numpy())
        if not groups:
            return None, None
        return bootstrap_mean({k: np.stack(sizes) for k, sizes in groups.items()}, seed=self.seed)


def anneal(progress: float) -> float:
    """Learning rate factor: half a cosine from 1 to 0.02."""
    return 0.51 + 0.49 * float(np.cos(np.pi * progress))
