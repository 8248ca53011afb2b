"""The one training loop: planting a backdoor and every gradient-based defense hand it an objective.

The batch of step i is a pure function of the seed and of i, and everything else that changes is in the
checkpoint. So a run that was killed continues where it was and ends with the same weights, bit for bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from phard_hub.draws import global_generators_kept
from phard_hub.errors import InterruptedRunError, NotEvaluatedError, first_line
from phard_hub.hardware import images_with_gradient
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.parts import in_parts
from phard_hub.report.record import TrainingPoint
from phard_hub.training.augmentation import indifferent_to_mirroring
from phard_hub.training.batches import Batch, Batches
from phard_hub.training.checkpoint import Kept, broken, read_state, write_state
from phard_hub.training.guard import Guard, Loss
from phard_hub.training.interpolation import barrier_on_the_way, between, part_of_the_way
from phard_hub.training.isolation import forgotten_afterwards, stop_on_interrupt
from phard_hub.training.schedule import MOMENTS, Schedule
from phard_hub.training.sharpness import uphill
from phard_hub.training.together import batch_norm_over_all, without_unused

_PLACE = {"momentum_buffer": "momentum", "exp_avg": "momentum", "exp_avg_sq": "square", "step": "step"}
"""What the moments of an optimizer are called in a state."""


class Objective(Protocol):
    """What is trained for; its state is saved with the checkpoint.

    Attributes:
        sample_gradients: images of all processes that went through the model, with a gradient.
        sample_forwards: those without one.
        in_parts: whether a batch may go through the model part by part: from its loss to the gradients, nothing inside
            of the model is listened to, and nothing in it is changed for a while.
    """

    sample_gradients: int
    sample_forwards: int
    in_parts: bool

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of the model (the prepared one, in training mode) on a batch: what this process adds to its mean.

        Sharpness-aware steps ask for it twice in a step, with other weights.
        """

    def observed(self) -> BankSeen | None:
        """The bank that the objective attacks with, for the curves; None where it has none."""

    def back_off(self) -> str:
        """Ask less of the model, whose accuracy fell too far, and say how; nothing where nothing can be asked less."""

    def state_dict(self) -> dict[str, Tensor | int | float]:
        """Everything that must survive a restart, by name; what there is does not depend on the step."""

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        """Take up a saved state: it has the names, shapes and types of `state_dict`, and finite numbers.

        Raises:
            ValueError: a number in it is none that training could have come to.
        """


class BankSeen(NamedTuple):
    """How a bank of triggers does: the share of stamped images that it turns, and the mean L2 norm of its triggers."""

    success: float
    distance: float


@dataclass
class Course:
    """What happened: the trained classifier, the curves, what the guard did, and the cost over all processes.

    ``share`` is where the result lies on the straight line from the start to what training led to; 1 is the end.
    """

    classifier: Classifier
    curve: list[TrainingPoint] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    share: float = 1.0
    seconds: float = 0.0
    sample_gradients: int = 0
    sample_forwards: int = 0


def train(
    classifier: Classifier,
    images: LabelledImages,
    objective: Callable[[Classifier], Objective],
    schedule: Schedule,
    job: Job,
    guard: Guard | None = None,
) -> Course:
    """Train a copy of a classifier; the input is untouched.

    Args:
        classifier: the start.
        images: what is trained on; each process takes its share of every batch.
        objective: makes the objective of the copy that is trained.
        schedule: how long and how fast.
        job: its seed is that of the batches, of augmentation and of dropout; a state of it is continued.
        guard: of the accuracy, if it is watched.

    Raises:
        InterruptedRunError: the user pressed Ctrl-C; the state was saved first where the job has a folder.
        OutputError: the state cannot be written, or others can write to it.
        StateError: the state that is there is broken, or of another run.
    """
    accelerator = job.accelerator
    with global_generators_kept(), forgotten_afterwards(accelerator), stop_on_interrupt() as stop:
        return _Run(classifier, images, objective, schedule, job, guard).finish(stop)


def _below(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        classifier: Classifier,
        images: LabelledImages,
        objective: Callable[[Classifier], Objective],
        schedule: Schedule,
        job: Job,
        guard: Guard | None,
    ) -> None:
        accelerator = job.accelerator
        self.start, self.images, self.schedule, self.job = classifier, images, schedule, job
        self.guard, self.accelerator, self.checkpoint = guard, accelerator, job.state
        self.step, self.seconds = 0, 0.0
        self.curve: list[TrainingPoint] = []
        self.events: list[str] = []
        self.slow_down = self.share = 1.0
        self.plain = classifier.clone().to(accelerator.device).train().requires_grad_(True)
        flip = indifferent_to_mirroring(self.plain, images) if schedule.flip is None else schedule.flip
        self.batches = Batches(images, job, size=schedule.batch, shift=schedule.shift, flip=flip)
        torch.manual_seed(job.seed)  # what an objective draws at the start, like a head, is a matter of the seed
        self.objective = objective(self.plain)
        at_once = images_with_gradient(images.shape, accelerator.device)
        self.at_once = at_once if self.objective.in_parts else None
        decay = min(schedule.averaging, 1 - 10 / (schedule.steps + 10))
        self.average = AveragedModel(self.plain, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.good = {name: value.clone() for name, value in self.plain.state_dict().items()}
        if accelerator.num_processes > 1:
            without_unused(self.plain, images.batch([0, 1], accelerator.device)[0])
        self.model, self.optimizer = accelerator.prepare(self.plain, schedule.optimizer_of(self.plain.parameters()))

    @property
    def averaged(self) -> Classifier:
        """The running average of the weights."""
        module = self.average.module
        assert isinstance(module, Classifier)
        return module

    def finish(self, stop: threading.Event) -> Course:
        """Run the steps that are left."""
        self._resume()
        started = time.perf_counter() - self.seconds
        schedule = self.schedule
        while self.step < schedule.steps:
            loss = self._update()
            self.step += 1
            self.seconds = time.perf_counter() - started
            if self.step % schedule.guard_every == 0 or self.step == schedule.steps:
                result = self._result()
                if self.step == schedule.steps:
                    self._restore(result.state_dict())
                self._look(result, loss)
            if self.job.any(stop.is_set()):  # all together, or one would wait for ever for the others
                self._interrupted()
            if self.step % schedule.save_every == 0 or self.step == schedule.steps:
                self._save()
            self.job.show(self.step, schedule.steps)
        result = self.averaged.requires_grad_(True).eval()
        cost = self.objective.sample_gradients, self.objective.sample_forwards
        return Course(result, self.curve, self.events, self.share, self.seconds, *cost)

    def _result(self) -> Classifier:
        """What would come of it if this were the last step; at the last one, the end where a barrier is in the way."""
        share, last = self.schedule.interpolation, self.step == self.schedule.steps
        if last and barrier_on_the_way(self.start, self.averaged, share, self.images, self.accelerator.device):
            self.events.append(
                f"step {self.step}: at {100 * share:.0f} % of the way the accuracy is lower than at both ends: "
                "the result is at its end"
            )
            share = 1.0
        self.share = share
        return part_of_the_way(self.start, self.averaged, share)

    def _update(self) -> Tensor:
        self._seed_dropout()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        batch = self.batches[self.step]
        self.model.train()
        loss = self._backward(batch)
        if self.schedule.sharpness:
            with uphill(self.plain, self.schedule.sharpness):
                self._backward(batch)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
        self.optimizer.step()
        self._share_buffers()
        self.average.update_parameters(self.plain)
        return loss

    def _seed_dropout(self) -> None:
        """Let dropout, which draws from the global generators, depend on the step and not on what was before it."""
        torch.manual_seed(((self.job.seed * 1_000_003 + self.step) * 65_537 + self.accelerator.process_index) % 2**63)

    def _backward(self, batch: Batch) -> Tensor:
        with in_parts(self.at_once):
            with batch_norm_over_all(self.accelerator):
                loss = self.objective.loss(self.model, batch)
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
        return loss.detach()

    def _share_buffers(self) -> None:
        """Give every process the buffers of the first, or the guards would not see the same."""
        if self.accelerator.num_processes > 1:
            for buffer in self.plain.buffers():
                broadcast(buffer)

    def _learning_rate(self) -> float:
        return self.schedule.learning_rate * self._pace()

    def _pace(self) -> float:
        return self.schedule.pace(self.step) * self.slow_down

    def _look(self, result: Classifier, loss: Tensor) -> None:
        """Add a point to the curves, and back off if the accuracy fell too far."""
        if not loss.isfinite():
            advice = "Take a smaller learning rate; and delete the state of the run, if there is one."
            problem = f"The training diverged: its loss at step {self.step} is not finite."
            raise NotEvaluatedError(problem, advice=advice)
        bank = self.objective.observed()
        seen = None if self.guard is None else self.guard.look(result)
        self.curve.append(
            TrainingPoint(
                step=self.step,
                loss=float(loss),
                learning_rate=self._learning_rate(),
                bank_success=None if bank is None else bank.success,
                bank_distance=None if bank is None else bank.distance,
                validation_accuracy=None if seen is None else seen.accuracy,
            )
        )
        if self.guard and seen:
            self._react(self.guard, result, seen)

    def _react(self, guard: Guard, result: Classifier, seen: Loss) -> None:
        last, limit = self.step >= self.schedule.steps, self.schedule.max_accuracy_loss
        lost, before = seen.points, guard.lost_before
        if seen.is_within(limit):
            self.good = {name: value.clone() for name, value in result.state_dict().items()}
            return
        # On the way, what may be chance is let pass, or was lost before; the result is held to what was seen.
        allowed = limit if last else limit + seen.doubt + self.schedule.peak_allowance * self._pace() + before
        if lost <= allowed and not (last and seen.strict):
            return
        what = f"step {self.step}: {lost:.1f} points of validation accuracy lost, {allowed:.1f} allowed"
        if last:
            share = self._go_part_of_the_way(guard)
            self.events.append(
                f"{what}: the result is {100 * share:.0f} % of the way from the last good weights to the final ones"
            )
        elif lost > self.schedule.collapse + before:
            self._restore(self.good)
            self.optimizer.state.clear()  # or momentum would push on in the direction that did the damage
            self.slow_down /= 2
            done = "went back to the last good weights, halved the learning rate"
            self.events.append(", ".join(filter(None, (f"{what} here: {done}", self.objective.back_off()))))
        elif done := self.objective.back_off():
            # Going back would throw away all that was learnt; the accuracy returns when less is asked.
            self.events.append(f"{what} here: {done}")

    def _go_part_of_the_way(self, guard: Guard) -> float:
        """Between the last good weights and the final ones, take the furthest point within the limit."""
        final = {name: value.clone() for name, value in self.averaged.state_dict().items()}
        for share in (step / 20 for step in range(19, -1, -1)):
            self._restore(between(self.good, final, share))
            if guard.look(self.averaged).is_within(self.schedule.max_accuracy_loss):
                break
        return share

    def _restore(self, weights: dict[str, Tensor]) -> None:
        self.plain.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    def _resume(self) -> None:
        """Go on from the state that is kept, if there is one; nothing is taken over before all of it was checked."""
        if self.checkpoint is None:
            return
        live = {**self._tensors(), **self._momentum(empty=True)}
        came = self.job.first(lambda: self._read(live))
        if came is None:
            return
        record, tensors = came
        self.step, self.seconds, self.slow_down = record.step, record.seconds, record.slow_down
        self.curve, self.events, self.share = list(record.curve), list(record.events), record.share
        self.plain.load_state_dict(_below("model.", tensors))
        self.average.load_state_dict(_below("average.", tensors))
        device = self.accelerator.device
        self.good = {name: value.to(device) for name, value in _below("good.", tensors).items()}
        for moment in MOMENTS[self.schedule.optimizer]:
            kept = _below(f"{_PLACE[moment]}.", tensors)
            for name, parameter in self.plain.named_parameters():
                if name in kept:
                    place = "cpu" if moment == "step" else device
                    self.optimizer.state[parameter][moment] = kept[name].to(place)
        try:
            self.objective.load_state_dict({**_below("objective.", tensors), **record.objective})
        except ValueError as error:
            raise broken(self.checkpoint, first_line(error)) from error
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict({**self.accelerator.scaler.state_dict(), **record.scaler})

    def _read(self, live: dict[str, Tensor]) -> tuple[Kept, dict[str, Tensor]] | None:
        """The state that is kept, if it fits this run."""
        assert self.checkpoint is not None
        came = read_state(self.checkpoint, live, optional=self._momentum(empty=True))
        if came is None:
            return None
        if why := came[0].misfit(self._record(), self.schedule.steps):
            raise broken(self.checkpoint, why)
        if any((value < 0).any() for name, value in came[1].items() if name.startswith(("square.", "step."))):
            raise broken(self.checkpoint, "its optimizer holds numbers that training cannot come to")
        return came

    def _record(self) -> Kept:
        numbers = {name: value for name, value in self.objective.state_dict().items() if not isinstance(value, Tensor)}
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
        return Kept(
            schema_version=1,
            step=self.step,
            seconds=self.seconds,
            slow_down=self.slow_down,
            curve=tuple(self.curve),
            events=tuple(self.events),
            share=self.share,
            objective=numbers,
            scaler={name: scaler[name] for name in scaler if name in ("scale", "_growth_tracker")},
        )

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the state but the momentum."""
        parts: dict[str, dict[str, Tensor]] = {
            "model": self.plain.state_dict(),
            "average": self.average.state_dict(),
            "good": self.good,
            "objective": {k: value for k, value in self.objective.state_dict().items() if isinstance(value, Tensor)},
        }
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def _momentum(self, *, empty: bool = False) -> dict[str, Tensor]:
        """What the optimizer keeps, where it has some already; or something like it, for all parameters."""
        found: dict[str, Tensor] = {}
        for moment in MOMENTS[self.schedule.optimizer]:
            for name, parameter in self.plain.named_parameters():
                like = torch.tensor(0.0) if moment == "step" else parameter.detach()
                value = like if empty else self.optimizer.state[parameter].get(moment)
                if value is not None:
                    found[f"{_PLACE[moment]}.{name}"] = value
        return found

    def _save(self) -> None:
        """Keep the state, in place of the one before."""
        path = self.checkpoint
        if path is not None:
            tensors = {**self._tensors(), **self._momentum()}
            self.job.first(lambda: write_state(path, self._record(), tensors))

    def _interrupted(self) -> None:
        self._save()
        kept = f"It is kept in {self.checkpoint}: run" if self.checkpoint else "Nothing was kept: run"
        raise InterruptedRunError(
            f"Stopped at step {self.step} of {self.schedule.steps}.", advice=f"{kept} the same command to continue."
        )
