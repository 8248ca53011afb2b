"""The plainest thing to train for, and a schedule under which the guard has something to do."""

from __future__ import annotations

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from phard_hub.images import LabelledImages
from phard_hub.training.batches import Batch
from phard_hub.training.loop import BankSeen
from phard_hub.training.schedule import Schedule
from tests.small import digit_images

GUARDED = Schedule(steps=60, batch=64, guard_every=5, learning_rate=0.05, shift=0.0, averaging=0.5, peak_allowance=2.0)


class Plain:
    """Cross-entropy; one that is wrong teaches every image the next class."""

    in_parts = True

    def __init__(self, *, wrong: bool = False) -> None:
        self.wrong = wrong
        self.sample_gradients = self.sample_forwards = 0
        self.backed_off = 0
        self.seen: list[tuple[Tensor, Tensor]] = []

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.seen.append((batch.pixels, batch.labels))
        labels = (batch.labels + 1) % 3 if self.wrong else batch.labels
        return batch.mean(functional.cross_entropy(model(batch.pixels), labels, reduction="none"))

    def observed(self) -> BankSeen:
        return BankSeen(success=0.25, distance=1.5)

    def back_off(self) -> str:
        self.backed_off += 1
        return "asked less"

    def state_dict(self) -> dict[str, Tensor | int | float]:
        return {"backed_off": self.backed_off}

    def load_state_dict(self, state: dict[str, Tensor | int | float]) -> None:
        self.backed_off = int(state["backed_off"])


def digits() -> tuple[LabelledImages, LabelledImages]:
    return digit_images(3)


def processor() -> Accelerator:
    return Accelerator(cpu=True)
