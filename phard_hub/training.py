"""The one training loop: planting a backdoor and every gradient-based defense hand it an objective.

The batch of step i is a pure function of the seed and of i, and everything else that changes is in the
checkpoint. So a run that was killed continues where it was and ends with the same weights, bit for bit.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from phard_hub.accuracy import points_lost, right_answers
from phard_hub.augmentation import indifferent_to_mirroring
from phard_hub.batches import Batches
from phard_hub.errors import InterruptedRunError, OutputError, first_line
from phard_hub.images import LabelledImages
from phard_hub.isolation import global_generators_kept, prepared_for_one_run, stop_on_interrupt
from phard_hub.models.classifier import Classifier
from phard_hub.progress import Progress, silent
from phard_hub.report.record import TrainingPoint
from phard_hub.schedule import Schedule
from phard_hub.weights import between, uphill


class Objective(Protocol):
    """What is trained for; its state is saved with the checkpoint."""

    sample_gradients: int
    sample_forwards: int

    def loss(self, model: nn.Module, pixels: Tensor, labels: Tensor, step: int) -> Tensor:
        """Loss of the model (the prepared one, in training mode) on a batch of pixels in [0, 1].

        Sharpness-aware steps ask for it twice in a step, with other weights.
        """

    def observed(self) -> tuple[float, float]:
        """Success and mean L2 size of what the objective attacks with, for the curves."""

    def back_off(self) -> str:
        """Ask less of the model, whose accuracy fell too far, and say how; nothing where nothing can be asked less."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that must survive a restart."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""


@dataclass
class Course:
    """What happened: the trained classifier, the curves, what the guard did, and the cost over all processes."""

    classifier: Classifier
    curve: list[TrainingPoint] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sample_gradients: int = 0
    sample_forwards: int = 0


def train(
    classifier: Classifier,
    images: LabelledImages,
    objective: Callable[[Classifier, Accelerator], Objective],
    schedule: Schedule,
    accelerator: Accelerator,
    *,
    seed: int,
    validation: LabelledImages | None = None,
    reference: Tensor | None = None,
    lost_before: float = 0.0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
    task: str = "training",
) -> Course:
    """Train a copy of a classifier; the input is untouched.

    Args:
        classifier: the start.
        images: what is trained on; each process takes its share of every batch.
        objective: makes the objective for the copy that is trained.
        schedule: how long and how fast.
        accelerator: of accelerate; decides on devices, processes and precision.
        seed: of the batches, of augmentation and of dropout.
        validation: what the accuracy guard looks at; without it there is no guard.
        reference: right answers to the validation images that the guard compares with; None takes those of the start.
        lost_before: points of accuracy that the start has lost against the reference.
        checkpoint: folder for the state of the run; an existing one is continued.
        progress: told about each step.
        task: what to call this in the progress.

    Raises:
        InterruptedRunError: the user pressed Ctrl-C; the state was saved first where there is a checkpoint.
    """
    # Dropout draws from the global generator: it is seeded inside a fork, and the caller's is left alone.
    with global_generators_kept(), prepared_for_one_run(accelerator), stop_on_interrupt() as stop:
        torch.manual_seed(seed + accelerator.process_index)
        run = _Run(
            classifier, images, objective, schedule, accelerator, seed, validation, reference, lost_before, checkpoint
        )
        return run.finish(stop, progress, task)


def part_of_the_way(start: Classifier, end: Classifier, share: float) -> Classifier:
    """The classifier at this share of the straight line between the weights of two; the end itself for 1."""
    if share == 1:
        return end
    made = end.clone()
    made.load_state_dict(between(start.clone().to(end.device).state_dict(), end.state_dict(), share))
    return made


def barrier_on_the_way(
    start: Classifier, end: Classifier, share: float, images: LabelledImages, device: torch.device
) -> bool:
    """Whether accuracy at this share of the way is lower than at both of its ends.

    A fine-tuned model is mostly joined to its start by a line without such a barrier, but not always: trained on a few
    hundred images, a model for traffic signs was right again at the end, and far from it on the way. Source: Frankle
    et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis" (ICML 2020, arXiv 1912.05671).

    Args:
        start: where the way begins.
        end: where it leads to.
        share: where on the way to look.
        images: what accuracy is measured on, 2,000 of them; those that the end was trained on will do.
        device: to measure on.
    """
    if share in (0, 1):
        return False
    images = images.take(torch.arange(len(images))[:: max(1, len(images) // 2000)])
    models = part_of_the_way(start, end, share), start.clone().to(device), end
    there, *ends = (right_answers(model, images, device) for model in models)
    return all(points_lost(each, there)[0] > 0 for each in ends)


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        classifier: Classifier,
        images: LabelledImages,
        objective: Callable[[Classifier, Accelerator], Objective],
        schedule: Schedule,
        accelerator: Accelerator,
        seed: int,
        validation: LabelledImages | None,
        reference: Tensor | None,
        lost_before: float,
        checkpoint: Path | None,
    ) -> None:
        self.start, self.images, self.schedule, self.accelerator = classifier, images, schedule, accelerator
        self.validation, self.lost_before, self.checkpoint = validation, lost_before, checkpoint
        self.step, self.seconds = 0, 0.0
        self.curve: list[TrainingPoint] = []
        self.events: list[str] = []
        self.slow_down = 1.0
        self.plain = classifier.clone().to(accelerator.device).train().requires_grad_(True)
        flip = indifferent_to_mirroring(self.plain, images) if schedule.flip is None else schedule.flip
        self.batches = Batches(images, accelerator, size=schedule.batch, seed=seed, shift=schedule.shift, flip=flip)
        self.objective = objective(self.plain, accelerator)
        decay = min(schedule.averaging, 1 - 10 / (schedule.steps + 10))
        self.average = AveragedModel(self.plain, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.reference = self._hits(self.plain) if reference is None else reference
        self.good = {name: value.clone() for name, value in self.plain.state_dict().items()}
        optimizer = torch.optim.SGD(
            self.plain.parameters(),
            schedule.learning_rate,
            schedule.momentum,
            weight_decay=schedule.weight_decay,
            nesterov=True,
        )
        self.model, self.optimizer = accelerator.prepare(self.plain, optimizer)
        accelerator.register_for_checkpointing(self.objective, self.average, self)

    @property
    def averaged(self) -> Classifier:
        """The running average of the weights."""
        module = self.average.module
        assert isinstance(module, Classifier)
        return module

    def state_dict(self) -> dict[str, Any]:
        """The loop's own part of a checkpoint."""
        return {
            "step": self.step,
            "curve": [point.model_dump() for point in self.curve],
            "events": self.events,
            "seconds": self.seconds,
            "slow_down": self.slow_down,
            "good": self.good,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.curve = [TrainingPoint(**point) for point in state["curve"]]
        self.step, self.events, self.seconds = state["step"], state["events"], state["seconds"]
        self.slow_down, self.good = state["slow_down"], state["good"]

    def finish(self, stop: threading.Event, progress: Progress, task: str) -> Course:
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
            if stop.is_set():
                self._interrupted()
            if self.step % schedule.save_every == 0 or self.step == schedule.steps:
                self._save()
            progress(task, self.step, schedule.steps)
        result = self.averaged.requires_grad_(True).eval()
        cost = self.objective.sample_gradients, self.objective.sample_forwards
        return Course(
            result, self.curve, self.events, self.seconds, *(n * self.accelerator.num_processes for n in cost)
        )

    def _result(self) -> Classifier:
        """What would come of it if this were the last step; at the last one, the end where a barrier is in the way."""
        way, last = self.schedule.way, self.step == self.schedule.steps
        if last and barrier_on_the_way(self.start, self.averaged, way, self.images, self.accelerator.device):
            self.events.append(
                f"step {self.step}: at {100 * way:.0f} % of the way the accuracy is lower than at both ends: "
                "the result is at its end"
            )
            way = 1.0
        return part_of_the_way(self.start, self.averaged, way)

    def _update(self) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        pixels, labels = self.batches[self.step]
        self.model.train()
        loss = self._backward(pixels, labels)
        if self.schedule.sharpness:
            with uphill(self.plain, self.schedule.sharpness):
                self._backward(pixels, labels)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.schedule.clip)
        self.optimizer.step()
        self._share_buffers()
        self.average.update_parameters(self.plain)
        return loss

    def _backward(self, pixels: Tensor, labels: Tensor) -> Tensor:
        loss = self.objective.loss(self.model, pixels, labels, self.step)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        return loss.detach()

    def _share_buffers(self) -> None:
        """Give every process the batch norm statistics of the first, or the guards would not see the same."""
        if self.accelerator.num_processes > 1:
            for buffer in self.plain.buffers():
                broadcast(buffer)

    def _learning_rate(self) -> float:
        return self.schedule.learning_rate * self._pace()

    def _pace(self) -> float:
        return self.schedule.pace(self.step) * self.slow_down

    def _look(self, result: Classifier, loss: Tensor) -> None:
        """Add a point to the curves, and back off if the accuracy fell too far."""
        hits = self._hits(result)
        success, distance = self.objective.observed()
        self.curve.append(
            TrainingPoint(
                step=self.step,
                loss=float(loss),
                learning_rate=self._learning_rate(),
                bank_success=success,
                bank_distance=distance,
                validation_accuracy=None if hits is None else float(hits.mean()),
            )
        )
        if hits is not None:
            self._guard(result, *points_lost(self.reference, hits))

    def _guard(self, result: Classifier, lost: float, doubt: float) -> None:
        last, limit = self.step >= self.schedule.steps, self.schedule.max_accuracy_loss
        if lost <= limit:
            self.good = {name: value.clone() for name, value in result.state_dict().items()}
            return
        # On the way, what may be chance is let pass, or was lost before; the result is held to what was seen.
        allowed = limit if last else limit + doubt + self.schedule.wobble * self._pace() + self.lost_before
        if lost <= allowed:
            return
        what = f"step {self.step}: {lost:.1f} points of validation accuracy lost, {allowed:.1f} allowed"
        if last:
            share = self._go_part_of_the_way()
            self.events.append(
                f"{what}: the result is {100 * share:.0f} % of the way from the last good weights to the final ones"
            )
        elif lost > self.schedule.collapse + self.lost_before:
            self._restore(self.good)
            self.optimizer.state.clear()  # or momentum would push on in the direction that did the damage
            self.slow_down /= 2
            done = "went back to the last good weights, halved the learning rate"
            self.events.append(", ".join(filter(None, (f"{what} here: {done}", self.objective.back_off()))))
        elif done := self.objective.back_off():
            # Going back would throw away all that was learnt; the accuracy returns when less is asked.
            self.events.append(f"{what} here: {done}")

    def _go_part_of_the_way(self) -> float:
        """Between the last good weights and the final ones, take the furthest point within the limit."""
        final = {name: value.clone() for name, value in self.averaged.state_dict().items()}
        for share in (step / 20 for step in range(19, -1, -1)):
            self._restore(between(self.good, final, share))
            if points_lost(self.reference, self._hits(self.averaged))[0] <= self.schedule.max_accuracy_loss:
                break
        return share

    def _restore(self, weights: dict[str, Tensor]) -> None:
        self.plain.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    def _hits(self, classifier: Classifier) -> Tensor | None:
        """Right answers to the validation images, where there are some."""
        images = self.validation
        return None if images is None else right_answers(classifier, images, self.accelerator.device)

    def _resume(self) -> None:
        if self.checkpoint is not None and self.checkpoint.is_dir():
            self.accelerator.load_state(str(self.checkpoint), load_kwargs={"weights_only": False})

    def _save(self) -> None:
        """Write the state beside the old one and swap them, so that a kill in between loses nothing."""
        if self.checkpoint is None:
            return
        fresh = self.checkpoint.with_name(self.checkpoint.name + ".writing")
        try:
            self.accelerator.save_state(str(fresh))
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap what the disk says
            shutil.rmtree(fresh, ignore_errors=True)
            raise OutputError(
                f"The checkpoint {fresh} cannot be written: {first_line(error)}.",
                advice="Free some space: a checkpoint takes about five times the size of the model.",
            ) from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(self.checkpoint, ignore_errors=True)
            fresh.rename(self.checkpoint)
        self.accelerator.wait_for_everyone()

    def _interrupted(self) -> None:
        self._save()
        kept = f"It is kept in {self.checkpoint}: run" if self.checkpoint else "Nothing was kept: run"
        raise InterruptedRunError(
            f"Stopped at step {self.step} of {self.schedule.steps}.", advice=f"{kept} the same command to continue."
        )
