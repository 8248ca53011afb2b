"""Adversarial training against a living bank of pervasive triggers.

MOTH (S&P 2022) inverts a trigger anew for hundreds of steps at every third batch. Here one bank holds a
trigger for every ordered pair of classes and a universal one for every class. Each takes a small step
between two steps of the model, all in one batch, so the triggers follow the model as it changes and a
hundred of them cost as little as one.

The triggers are held at a fixed size. Left to grow until they succeed, they run away from the model while
small ones, which it takes a converged search to find, go on working.
"""

from __future__ import annotations

import math
from dataclasses import field

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.defenses.hardening.repertoire import Repertoire
from phard_hub.defenses.trained import Trained
from phard_hub.draws import Draws
from phard_hub.hardware import fast_autocast
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.settings import BelowOne, Share, settings
from phard_hub.training.batches import Batch
from phard_hub.training.loop import BankSeen
from phard_hub.triggers.autoencoder import train_autoencoder
from phard_hub.triggers.bank import Bank, Parts, at_size, change_size, finite, grey_level
from phard_hub.triggers.drawn import stamp_at_random


@settings
class AdversarialTraining(Trained):
    """Training on clean images and on images stamped by a bank of pervasive triggers.

    Attributes:
        stamped: triggered images in a step, as a share of the clean ones.
        universal: share of the stamped images that carry a universal trigger of all parts.
        distillation: weight of KL(start || hardened) on clean images. It buys accuracy, but protects what is planted
            in the start, too.
        more_distillation: what the accuracy guard adds to that weight each time it acts.
        head_start: steps that the bank takes before the model moves.
        head_start_batch: images in each of those.
        learning_rate: of the bank's Adam.
        betas: of the bank's Adam.
        budget: size that the triggers are held at, in grey levels (0-255) RMS; images are stamped at half
            of it to all of it. It is what the distances grow towards, and what accuracy is paid for.
        price: start of the weight of a trigger's size in its loss, for 3 x 32 x 32 images.
        price_factor: the price is multiplied by it while a trigger is above its budget, divided below.
        single: share of the stamped images that carry a universal trigger of a single kind: warp, colour
            or field. The field is the cheapest part for most directions, and triggers of all parts leave
            the rest to it; a planted warp is found by a trigger that can do nothing else.
        random: images with a trigger drawn at random in a step, as a share of the clean ones.
        random_budget: largest size of those, in grey levels (0-255) RMS.
        floor: triggers are chosen in proportion to their running success plus this. The ones that work are what
            the model has to learn; most of the others are wasted on it.
        max_pairs: with more ordered pairs than this, a random choice of them.
        parts: what a trigger is made of.
    """

    stamped: Share = 0.5
    universal: Share = 0.3
    distillation: NonNegativeFloat = 0.0
    more_distillation: NonNegativeFloat = 1.0
    head_start: NonNegativeInt = 20
    head_start_batch: PositiveInt = 256
    learning_rate: NonNegativeFloat = 0.01
    betas: tuple[BelowOne, BelowOne] = (0.5, 0.9)
    budget: PositiveFloat = 14.0
    price: PositiveFloat = 1.0
    price_factor: PositiveFloat = 1.15
    single: Share = 0.3
    random: Share = 0.0
    random_budget: PositiveFloat = 40.0
    floor: Share = 0.01
    max_pairs: PositiveInt = 1000
    parts: Parts = field(default_factory=Parts)

    name = "adversarial"

    @property
    def gradients(self) -> int:
        """About how many sample-gradients it takes: the bank's steps, too."""
        start = self.head_start * self.head_start_batch if self.schedule.steps else 0
        return start + round(super().gradients * (1 + 2 * self.stamped + self.random))

    def objective(self, original: Classifier, copy: Classifier, images: LabelledImages, job: Job) -> _Objective:
        """Right answers on clean and stamped images, and a bank of triggers that follows the copy."""
        return _Objective(self, original, copy, images, job)


_FOLLOWING = ("price", "running", "sizes")
_COUNTERS = ("sample_gradients", "sample_forwards", "distillation")


class _Objective:
    """Cross-entropy on clean and stamped images, while the bank follows the model."""

    in_parts = True

    def __init__(
        self,
        settings: AdversarialTraining,
        original: Classifier,
        plain: Classifier,
        images: LabelledImages,
        job: Job,
    ) -> None:
        self.settings, self.plain, self.job = settings, plain, job
        self.device = job.accelerator.device
        self.teacher = original.clone().to(self.device).eval().requires_grad_(False)
        self.images = images
        self.distillation = settings.distillation
        self.sample_gradients = self.sample_forwards = 0
        self.triggers = Repertoire.of(
            images.classes,
            list(settings.parts.shapes(*images.shape)),
            max_pairs=settings.max_pairs,
            seed=job.seed,
        )
        count = len(self.triggers)
        self.target, self.strengths, self.components = (
            value.to(self.device)
            for value in (self.triggers.target, self.triggers.strengths, self.triggers.components())
        )
        size = int(self.components.max()) + 1
        autoencoder = None
        if settings.parts.latent:
            autoencoder = train_autoencoder(images, seed=job.seed, device=self.device, progress=job.progress)
        self.bank = Bank(size, images.shape, settings.parts, autoencoder=autoencoder).to(self.device)
        self.bank.randomise(job.seed)
        self.optimizer = torch.optim.Adam(self.bank.parameters(), settings.learning_rate, betas=settings.betas)
        self.start_price = settings.price * float(3072 / math.prod(images.shape)) ** 0.5
        self.budget = grey_level(images.shape) * settings.budget
        self.price = torch.full((count,), self.start_price, device=self.device)
        self.running, self.sizes = torch.zeros(2, count, device=self.device)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """One step of the bank, then the model's loss on clean and stamped images in one forward pass."""
        count = max(1, round(self.settings.stamped * batch.size))
        source, by_chance = batch.first(count), batch.last(round(self.settings.random * batch.size))
        draws = source.draws(purpose=2)
        if not self.sample_gradients:
            self._head_start(draws.random)
        rows = self.choose(source.all_labels, draws)
        self._attack(source.pixels, rows)
        self.sample_gradients += source.size
        with torch.no_grad():
            stamped = self._stamped(source.pixels, rows, draws)
            random = self._stamped_at_random(by_chance)
        shown = batch.with_more(stamped, source).with_more(random, by_chance)
        logits = model(shown.pixels).float()
        self.sample_gradients += shown.size
        loss = shown.mean(functional.cross_entropy(logits, shown.labels, reduction="none"))
        if self.distillation:
            self.sample_forwards += batch.size
            loss = loss + self.distillation * batch.mean(self._divergence(batch.pixels, logits[: len(batch)]))
        return loss

    def _stamped(self, pixels: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        """Images with their triggers from the bank, at half of the budget to all of it."""
        size = self.budget * (0.5 + 0.5 * draws.rand()).to(self.device)
        components, strengths = self.components[rows], self.strengths[rows]
        return at_size(lambda scale: self.bank(pixels, components, scale[:, None] * strengths), pixels, size)

    def _stamped_at_random(self, batch: Batch) -> Tensor:
        """Images with triggers that the bank does not know."""
        return stamp_at_random(batch.pixels, self.settings.parts, self.settings.random_budget, batch.draws(purpose=3))

    def _divergence(self, pixels: Tensor, logits: Tensor) -> Tensor:
        """KL(start || hardened) on each clean image, ``(N,)``."""
        with torch.no_grad(), fast_autocast(self.device):
            teacher = self.teacher(pixels).float()
        return functional.kl_div(logits.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="none").sum(
            1
        )

    def choose(self, labels: Tensor, draws: Draws) -> Tensor:
        """A trigger for each image that is drawn for, by the labels of the whole batch."""
        settings = self.settings
        shares = (1 - settings.universal - settings.single, settings.universal, settings.single)
        worth = settings.floor + self.running.cpu().square()
        return self.triggers.choose(labels.cpu(), shares, worth, draws).to(self.device)

    def _head_start(self, random: torch.Generator) -> None:
        process, processes = self.job.accelerator.process_index, self.job.accelerator.num_processes
        count = self.settings.head_start_batch
        draws = Draws(random, count, torch.arange(count)[process::processes])
        for _ in range(self.settings.head_start):
            numbers = torch.randint(len(self.images), (count,), generator=random)
            pixels, _ = self.images.batch(draws.mine(numbers), self.device)
            self._attack(pixels, self.choose(self.images.labels[numbers], draws))
            self.sample_gradients += count

    def _attack(self, pixels: Tensor, rows: Tensor) -> None:
        """One step of the bank against the model as it is, in evaluation mode and without a mark on it."""
        targets = self.target[rows]
        with frozen(self.plain):
            stamped = self.bank(pixels, self.components[rows], self.strengths[rows])
            with fast_autocast(self.device):
                logits = self.plain(stamped)
            size = change_size(stamped, pixels)
            # Summed, not averaged: an image is most of what its trigger sees in this step.
            loss = (functional.cross_entropy(logits.float(), targets, reduction="none") + self.price[rows] * size).sum()
            gradients = torch.autograd.grad(loss, list(self.bank.parameters()))
        for parameter, gradient in zip(self.bank.parameters(), gradients, strict=True):
            parameter.grad = self.job.accelerator.reduce(finite(gradient), "sum")
        self.optimizer.step()
        self._follow(rows, (logits.argmax(1) == targets).float(), size.detach())

    def _follow(self, rows: Tensor, hits: Tensor, size: Tensor) -> None:
        """Update running success and size of the triggers that were used, and what size costs them."""
        totals = torch.zeros(3, len(self.price), device=self.device)
        totals.index_add_(1, rows, torch.stack([torch.ones_like(hits), hits, size]))
        used, hit, sized = self.job.accelerator.reduce(totals, "sum")
        seen = used > 0
        pace = 1 - 0.9**used
        self.running = torch.where(seen, self.running + pace * (hit / used.clamp(min=1) - self.running), self.running)
        self.sizes = torch.where(seen, self.sizes + pace * (sized / used.clamp(min=1) - self.sizes), self.sizes)
        up = torch.where(self.sizes > self.budget, self.settings.price_factor, 1 / self.settings.price_factor)
        # A trigger that cannot reach its size must not need hundreds of steps to come back from there.
        self.price = torch.where(seen, self.price * up, self.price).clamp(
            self.start_price / 100, self.start_price * 100
        )

    def observed(self) -> BankSeen:
        """Mean running success and mean size (L2, pixels in [0, 1]) of the bank."""
        return BankSeen(float(self.running.mean()), float(self.sizes.mean()))

    def back_off(self) -> str:
        """Hold on to the start's answers to clean images more than before."""
        self.distillation += self.settings.more_distillation
        return f"distillation from the model it started from at weight {self.distillation:g} from here on"

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """Bank, the moments of its optimiser, prices and counters."""
        bank = {f"bank.{name}": parameter for name, parameter in self.bank.named_parameters()}
        following = {name: getattr(self, name) for name in _FOLLOWING}
        return {**bank, **self._moments(), **following, **{name: getattr(self, name) for name in _COUNTERS}}

    def _moments(self) -> dict[str, Tensor]:
        """What Adam keeps of each parameter; zeros before its first step, which it begins with, too."""
        found = {}
        for name, parameter in self.bank.named_parameters():
            state = self.optimizer.state[parameter]
            found[f"moments.{name}.step"] = state.get("step", torch.tensor(0.0))
            for moment in ("exp_avg", "exp_avg_sq"):
                found[f"moments.{name}.{moment}"] = state.get(moment, torch.zeros_like(parameter))
        return found

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state.

        Raises:
            ValueError: a number in it is none that training could have come to.
        """
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        for name, value in tensors.items():
            share, square = name == "running", name.endswith((".step", ".exp_avg_sq")) or name in _FOLLOWING
            if (square and (value < 0).any()) or (share and (value > 1).any()):
                raise ValueError(f"the numbers of {name} are out of their range")
        self.bank.load_state_dict({name: tensors[f"bank.{name}"] for name, _ in self.bank.named_parameters()})
        for name, parameter in self.bank.named_parameters():
            moments = {moment: tensors[f"moments.{name}.{moment}"] for moment in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {
                moment: value if moment == "step" else value.to(self.device) for moment, value in moments.items()
            }
        for name in _FOLLOWING:
            setattr(self, name, tensors[name].to(self.device))
        for name in _COUNTERS:
            setattr(self, name, state[name])
