"""One cell for each construction and each defence: what is left of the key, and what is left of the accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from phard_hub.auditing.module import audit_module
from phard_hub.auditing.weights import Spectrum
from phard_hub.defenses import (
    AdversarialTraining,
    Defense,
    Distillation,
    FineTuning,
    HeadReset,
    Immunizer,
    NoiseTraining,
    Smoothing,
)
from phard_hub.defenses.immunizer import canonical
from phard_hub.errors import PhardError
from phard_hub.images import LabelledImages
from phard_hub.job import Job
from phard_hub.models.classifier import Classifier
from phard_hub.models.head import linear_head
from phard_hub.report.distances import Rate
from phard_hub.report.statistics import rate
from tests.benchmarks.undetectable.scenes import Delivered, Scene, accuracy, asked

Cell = dict[str, Any]
VOTING = 60
"""Images that are voted on."""
VOTES = Smoothing(sigma=0.25, votes=100, guesses=20)


def row(
    delivered: Delivered, scene: Scene, job: Job, columns: Sequence[str] | None = None
) -> Iterator[tuple[str, Cell]]:
    """The cells of one construction, by the name of the column; all columns if None."""
    for name in columns or COLUMNS:
        fill, started = _COLUMNS[name], time.perf_counter()
        try:
            cell = fill(delivered, scene, job)
        except (PhardError, RuntimeError, ValueError) as refusal:  # of torch: other tensors, or none to train
            cell = {"refused": str(refusal).splitlines()[0]}
        yield name, cell | {"seconds": round(time.perf_counter() - started, 1)}


def _judged(classifier: Classifier, delivered: Delivered, scene: Scene) -> Cell:
    return _cell(delivered.success(asked(classifier), scene.test), accuracy(classifier, scene.test))


def _cell(success: Rate, right: Rate, **more: object) -> Cell:
    return {"success": success.model_dump(), "accuracy": right.model_dump(), **more}


def _defended(defense: Callable[[Scene], Defense]) -> Callable[[Delivered, Scene, Job], Cell]:
    def fill(delivered: Delivered, scene: Scene, job: Job) -> Cell:
        made = defense(scene).harden(delivered.classifier, scene.train, job).classifier
        return _judged(made, delivered, scene)

    return fill


def _strict(delivered: Delivered, scene: Scene, _job: Job) -> Cell:
    return _judged(scene.strict(delivered.classifier), delivered, scene)


def _audit(delivered: Delivered, scene: Scene, _job: Job) -> Cell:
    """What is seen of the object, and of its head beside the upstream's; no number is left, it is not used."""
    found = [(each.id, each.severity) for each in audit_module(delivered.classifier, scene.test)]
    if delivered.honest is scene.honest:
        spectrum = Spectrum.of(*(linear_head(each).weight.detach() for each in (delivered.classifier, scene.honest)))
        found += [(each.id, each.severity) for each in spectrum.findings("head")]
    return {"found": sorted({f"{id_} {severity}" for id_, severity in found})}


def _distilled(delivered: Delivered, scene: Scene, job: Job) -> Cell:
    distillation = Distillation(schedule=scene.schedule(1.5, 0.1))
    made = distillation.into(scene.fresh(1), delivered.classifier, scene.train, job).classifier
    return _judged(made, delivered, scene)


def _around(immunizer: Immunizer, delivered: Delivered, test: LabelledImages) -> Cell:
    pixels, labels = test.batch(range(len(test)))
    answers = immunizer.predict(pixels)
    right, silent = rate(int((answers == labels).sum()), len(labels)), rate(int((answers < 0).sum()), len(labels))
    return _cell(delivered.success(immunizer.predict, test), right, abstained=silent.model_dump())


def _canonical(delivered: Delivered, scene: Scene, _job: Job) -> Cell:
    return _around(canonical(delivered.classifier), delivered, scene.test)


def _votes(delivered: Delivered, scene: Scene, job: Job) -> Cell:
    few = scene.test.take(torch.arange(VOTING))
    return _around(Immunizer(delivered.classifier, VOTES, seed=job.seed), delivered, few)


def _noise_and_votes(delivered: Delivered, scene: Scene, job: Job) -> Cell:
    noise = NoiseTraining(sigma=VOTES.sigma, schedule=scene.schedule())
    made = noise.harden(delivered.classifier, scene.train, job).classifier
    few = scene.test.take(torch.arange(VOTING))
    return _around(Immunizer(made, VOTES, seed=job.seed), delivered, few)


_COLUMNS: dict[str, Callable[[Delivered, Scene, Job], Cell]] = {
    "honest": lambda delivered, scene, _job: _judged(delivered.honest, delivered, scene),
    "delivered": lambda delivered, scene, _job: _judged(delivered.classifier, delivered, scene),
    "fine-tuning": _defended(lambda scene: FineTuning(schedule=scene.schedule())),
    "hardening": _defended(lambda scene: AdversarialTraining(schedule=scene.schedule(0.3))),
    "audit": _audit,
    "strict load": _strict,
    "head reset": _defended(lambda _scene: HeadReset()),
    "distillation": _distilled,
    "64 grey levels": _canonical,
    "votes": _votes,
    "noise, then votes": _noise_and_votes,
}
COLUMNS = tuple(_COLUMNS)
OF_A_HEAD = ("honest", "delivered", "fine-tuning", "hardening", "audit", "strict load", "head reset")
"""What matters where only the head is edited, and what an hour is enough for with a large network."""


def as_markdown(cells: dict[str, dict[str, Cell]]) -> str:
    """The cells as a table: success of the key, and accuracy below it."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_text(row.get(column)) for column in COLUMNS)} |" for name, row in cells.items()]
    return "\n".join(lines) + "\n"


def _text(cell: Cell | None) -> str:
    if cell is None:
        return "not yet"
    if "found" in cell:
        return ", ".join(cell["found"]) or "nothing found"
    if "refused" in cell:
        return "does not fit"
    success, right = (Rate.model_validate(cell[name]) for name in ("success", "accuracy"))
    return f"{_percent(success)} ({100 * right.value:.1f})"


def _percent(found: Rate) -> str:
    """In a cell: the rule of three where nothing was seen."""
    return f"<= {300 / found.n:.2g}" if found.value == 0 else f"{100 * found.value:.1f}"
