"""A classifier that somebody hands over as an object: its code, the operations it does, and whether it can learn.

Files are audited without running anything; an object can only be looked at by running it, so this is for what came
from a trusted place, or runs where nothing can be lost.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from phard_hub.draws import global_generators_kept
from phard_hub.errors import CheckpointError, first_line
from phard_hub.hub.snapshot import Audit
from phard_hub.images import LabelledImages
from phard_hub.models.classifier import Classifier, frozen
from phard_hub.models.library_code import require_library_code
from phard_hub.models.strict import library_twin
from phard_hub.report.findings import error, note
from phard_hub.report.record import Finding

LEAST_LIVE = 0.01
"""Share of the weights that must have a gradient; of honest networks it is above a fifth."""
LOOKED_AT = 64
_SHOWN = 4


def audit_module(classifier: Classifier, images: LabelledImages) -> tuple[Finding, ...]:
    """Look at a classifier in memory; an error forbids using it. It is left as it was.

    `phard_hub.models.strict.in_library_class` takes its tensors along and leaves its code behind.

    Args:
        classifier: what is looked at.
        images: clean ones, of which the first 64 are shown to it.
    """
    return (*_code(classifier), *_operations(classifier), *liveness(classifier, images).findings(classifier))


def require_alive(audited: Audit, classifier: Classifier, images: LabelledImages) -> Audit:
    """The audit of files with what can only be seen with images: whether training changes the model at all.

    Raises:
        AuditError: it does not.
    """
    audited = replace(audited, findings=(*audited.findings, *liveness(classifier, images).findings(classifier)))
    audited.require()
    return audited


def _code(classifier: Classifier) -> Iterator[Finding]:
    """PH-A37: code of others, which no change of the weights reaches."""
    try:
        require_library_code(classifier.network)
    except CheckpointError as refusal:
        yield error("PH-A37", _name(classifier), refusal.problem, "Load its tensors into the library's class.")


def _operations(classifier: Classifier) -> Iterator[Finding]:
    """PH-A38: operations that are not those of a fresh network of the same class and config.

    Those that run on a blank image are counted, and both are traced without any image. What only some images set off,
    or what leaves torch on the way, cannot be traced, where the library's network can.
    """
    try:
        twin = library_twin(classifier.network).to(classifier.device)
    except CheckpointError as unknown:
        yield note("PH-A38", _name(classifier), unknown.problem, unknown.advice)
        return
    blank = torch.zeros(1, classifier.channels, *classifier.image_size, device=classifier.device)
    shown = classifier.preprocess(blank)
    here, there = operations(classifier.network, shown), operations(twin, shown)
    differing = sorted(name for name in here.keys() | there.keys() if here[name] != there[name])
    evidence = []
    if differing:
        counts = ", ".join(f"{name} {there[name]} -> {here[name]}" for name in differing[:_SHOWN])
        evidence.append(f"{counts}{f' and {len(differing) - _SHOWN} more' if len(differing) > _SHOWN else ''}")
    if not untraceable(twin, shown) and (why := untraceable(classifier.network, shown)):
        evidence.append(f"what it does depends on the image: {why}")
    if evidence:
        yield error("PH-A38", _name(classifier), "; ".join(evidence), "Load its tensors into the library's class.")


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the operation gives
        del types
        self.seen[str(func).split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def operations(network: nn.Module, images: Tensor) -> Counter[str]:
    """How often a network does which operation of torch on normalised images ``(N, C, H, W)``.

    Those that run are counted, so what only other images would set off is not seen.
    """
    counting = _Counting()
    with frozen(network), torch.no_grad(), counting:
        network(images)
    return counting.seen


def untraceable(network: nn.Module, images: Tensor) -> str:
    """Why a network cannot be written down as operations for any image; empty if it can.

    Args:
        network: is traced by `torch.export`, which follows its code with tensors that hold no numbers.
        images: normalised, ``(N, C, H, W)``; only their shape matters.
    """
    silenced = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it logs all that it had traced by then
    try:
        with frozen(network), torch.no_grad(), warnings.catch_warnings(action="ignore"), global_generators_kept():
            torch.export.export(network, (images,), strict=False)
    except Exception as why:  # noqa: BLE001 - whatever the code of a stranger raises at tensors without numbers
        return f"{type(why).__name__}: {first_line(why)}"
    finally:
        logging.disable(silenced)
    return ""


@dataclass(frozen=True)
class Liveness:
    """Whether a network can be trained: the share of weights with a gradient, and how many different logits it has."""

    gradients: float
    logits: int
    classes: int
    images: int

    @property
    def is_dead(self) -> bool:
        """Whether training it would change nothing, as where three copies vote."""
        return self.gradients < LEAST_LIVE or (self.logits <= 2 * self.classes and self.images > 2 * self.classes)

    def findings(self, classifier: Classifier) -> Iterator[Finding]:
        """PH-A39: a network that no training moves."""
        if self.is_dead:
            share = f"{100 * self.gradients:.2g} % of the weights have a gradient"
            evidence = f"{share}, {self.logits} different logits on {self.images} images"
            yield error("PH-A39", _name(classifier), evidence, "Do not use it: nothing that trains can harden it.")


def liveness(classifier: Classifier, images: LabelledImages) -> Liveness:
    """Gradients and logits on the first 64 images; the classifier is left as it was."""
    count = min(LOOKED_AT, len(images))
    pixels, labels = images.batch(range(count), classifier.device)
    weights = {name: value.detach().clone().requires_grad_() for name, value in classifier.named_parameters()}
    with frozen(classifier), torch.enable_grad():
        logits = functional_call(classifier, weights, (pixels,))
        loss = functional.cross_entropy(logits.float(), labels)
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True) if loss.requires_grad else ()
    live = sum(int((each != 0).sum()) for each in found if each is not None)
    total = sum(value.numel() for value in weights.values())
    return Liveness(live / max(1, total), len(logits.detach().unique()), classifier.num_classes, count)


def _name(classifier: Classifier) -> str:
    return type(classifier.network).__name__
