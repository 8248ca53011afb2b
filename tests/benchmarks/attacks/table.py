"""The README's tables of attacks, made of the trials alone, beside the figures that others report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from phard_hub.report.comparison import success_left
from phard_hub.report.record import Evaluation, both_reached, mean_increase
from phard_hub.report.trial import Judgement, Trial
from tests.benchmarks import trade_off
from tests.benchmarks.records import RESULTS

README = Path(__file__).parents[3] / "README.md"
REPORTED = {
    "cifar10": {
        "BackdoorBench": {
            "blend": "93.47 / 99.92",
            "wanet": "91.25 / 89.73",
            "sig": "93.64 / 97.09",
            "bpp": "90.69 / 99.78",
            "issba": "92.88 / 97.86",
            "input-aware": "90.67 / 98.26",
        },
        "OrthogLinearBackdoor": {
            "blend": "92.32 / 100",
            "wanet": "91.81 / 98.83",
            "sig": "92.06 / 99.02",
            "refool-ghost": "92.07 / 99.58",
            "nashville": "92.40 / 99.95",
            "dfst": "92.64 / 99.72",
            "issba": "91.33 / 100",
            "lira": "92.19 / 100",
            "input-aware": "89.79 / 96.62",
        },
    },
    "gtsrb_roi32": {
        "OrthogLinearBackdoor": {
            "blend": "96.45 / 100",
            "wanet": "93.34 / 90.60",
            "sig": "95.84 / 81.31",
            "refool-ghost": "95.76 / 91.90",
            "nashville": "94.03 / 100",
            "dfst": "95.22 / 98.42",
            "issba": "95.75 / 99.95",
        },
    },
}
"""Accuracy and success in percent. BackdoorBench's board: PreAct-ResNet-18, 10 % poison, SIG 5 %. The logs of
OrthogLinearBackdoor: ResNet-18 for CIFAR-10, a wide ResNet for GTSRB, 95.75 % accurate without a backdoor."""
FOLDERS = ("cifar10", "gtsrb_roi32", "gtsrb_roi32-small")
PATCHES = ("badnets", "trojan-watermark")
PARTS_ATTACKS = ("blend", "sig", "dfst")
PARTS = (
    ("bank-alone", 1.0),
    ("feature-shift", 1.0),
    ("pervasive", 1.0),
    ("sharpness-aware", 0.05),
    ("pervasive", 0.05),
)
"""Defenses with their shares of the images, and the attacks that they are compared over."""


def read(folder: Path) -> list[Trial]:
    """All trials of a comparison, in the order of their triggers' size."""
    trials = [Trial.read(path) for path in sorted((folder / "cells").glob("*.json"))]
    return sorted(trials, key=_place)


def _place(trial: Trial) -> tuple[float, str, float, str]:
    return trial.size.rms if trial.size else 0, trial.cell.attack, -trial.cell.data_share, trial.cell.defense


def planted(trials: Sequence[Trial], reported: Mapping[str, Mapping[str, str]]) -> str:
    """One line a planted model: what its backdoor does, and whether the search sees its target."""
    rows = []
    for trial in {trial.cell.attack: trial for trial in trials}.values():  # all defenses share it
        if trial.size is None or trial.original is None or trial.before is None:
            continue
        before = trial.before.evaluation
        cost = 100 * (trial.original.evaluation.accuracy.value - before.accuracy.value)
        rank = trial.before.target_rank(trial.target or 0)
        rows.append(
            (
                trial.cell.attack,
                f"{trial.size.rms:.1f}",
                f"{trial.size.ssim:.2f}",
                str(trial.config["planting"]["steps"]),
                f"{_percent(before.accuracy.value)} ({-cost:+.1f})",
                _percent(before.attacks[0].success.value),
                _percent(trial.original.evaluation.attacks[0].success.value),
                *(figures.get(trial.config["attack"]["name"], "") for figures in reported.values()),
                "-" if rank is None else str(rank),
            )
        )
    head = ("attack", "grey levels", "SSIM", "steps", "accuracy", "success", "on the original")
    return _table((*head, *reported, "rank of the target"), rows)


def defended(trials: Sequence[Trial]) -> str:
    """One line a defended model: what is left of the backdoor, and how soon it is back."""
    rows = []
    for trial in trials:
        left = None if trial.hardening is None else success_left(trial)
        if trial.size is None or trial.original is None or trial.before is None or trial.after is None or left is None:
            continue
        before, after = trial.before.evaluation, trial.after.evaluation
        gain = 100 * (after.accuracy.value - before.accuracy.value)
        rows.append(
            (
                trial.cell.attack,
                trial.cell.defense,
                f"{100 * trial.cell.data_share:g} %",
                f"{_percent(after.accuracy.value)} ({gain:+.1f})",
                f"{_percent(before.attacks[0].success.value)} to **{_percent(left)}**",
                _percent(after.attacks[0].recovered.value),
                f"{_woken(trial.after)} ({_woken(trial.original)})",
                f"{_moved(trial.after)} ({_moved(trial.original)})",
            )
        )
    head = (
        "attack",
        "defense",
        "images",
        "accuracy",
        "success",
        "recovered",
        "woken by fine-tuning",
        "by a perturbation",
    )
    return _table(head, rows)


class Left(NamedTuple):
    """What a defense leaves of a backdoor, and what it costs against the honest model, which never had it; shares.

    Beside each rate stands what the same trigger does to the honest model.
    """

    success: float
    success_honest: float
    accuracy_lost: float
    recovered: float
    recovered_honest: float
    woken: float
    woken_honest: float
    larger: float | None
    """The mean increase of the universal distances, where they were measured."""

    @classmethod
    def of(cls, trial: Trial) -> Left | None:
        """Of one trial; None where no backdoor was defended against."""
        original, before, after = trial.original, trial.before, trial.after
        if original is None or before is None or after is None or not after.evaluation.attacks:
            return None
        larger = None
        if before.distances and after.distances:
            larger = mean_increase(both_reached(before.distances.universal, after.distances.universal))
        honest, left = original.evaluation.attacks[0], after.evaluation.attacks[0]
        return cls(
            left.success.value,
            honest.success.value,
            original.evaluation.accuracy.value - after.evaluation.accuracy.value,
            left.recovered.value,
            honest.recovered.value,
            after.relearned[-1].success.value,
            original.relearned[-1].success.value,
            larger,
        )


def default_on_all() -> str:
    """One line a network and a share of the images: means and the worst of the default over all pervasive backdoors."""
    trials = [trial for folder in FOLDERS for trial in read(RESULTS / folder)]
    found: dict[tuple[str, float], list[Left]] = {}
    for trial in trials:
        if trial.cell.defense == "pervasive" and trial.cell.attack not in PATCHES and (left := Left.of(trial)):
            found.setdefault((trial.cell.model, trial.cell.data_share), []).append(left)
    rows = []
    for (model, share), group in sorted(found.items(), key=lambda item: (item[0][0], -item[0][1])):
        larger = [each.larger for each in group if each.larger is not None]
        rows.append(
            (
                model,
                f"{100 * share:g} %",
                str(len(group)),
                _mean_and_worst([each.success for each in group], max, [each.success_honest for each in group]),
                _mean_and_worst([each.accuracy_lost for each in group], max),
                _mean_and_worst([each.recovered for each in group], min, [each.recovered_honest for each in group]),
                _mean_and_worst([each.woken for each in group], max, [each.woken_honest for each in group]),
                f"{100 * fmean(larger):+.0f} %, worst {100 * min(larger):+.0f} %" if larger else "-",
            )
        )
    head = ("network", "images", "backdoors", "success left", "accuracy lost", "recovered", "woken by fine-tuning")
    return _table((*head, "distances"), rows)


def parts(trials: Sequence[Trial]) -> str:
    """One line a defense: means over the attacks that all of these were tried on."""
    rows = []
    for defense, share in PARTS:
        same = [trial for trial in trials if (trial.cell.defense, trial.cell.data_share) == (defense, share)]
        left = [each for trial in same if trial.cell.attack in PARTS_ATTACKS and (each := Left.of(trial))]
        if len(left) < len(PARTS_ATTACKS):
            continue
        rows.append(
            (
                defense,
                f"{100 * share:g} %",
                _mean_and_worst([each.success for each in left], max),
                _mean_and_worst([each.accuracy_lost for each in left], max),
                _percent(fmean(each.recovered for each in left)),
                _percent(fmean(each.woken for each in left)),
                f"{100 * fmean(each.larger or 0.0 for each in left):+.0f} %",
            )
        )
    head = ("defense", "images", "success left", "accuracy lost", "recovered", "woken by fine-tuning", "distances")
    return _table(head, rows)


def _mean_and_worst(
    shares: Sequence[float], worst: Callable[[Sequence[float]], float], honest: Sequence[float] = ()
) -> str:
    beside = f" ({_percent(fmean(honest))})" if honest else ""
    return f"{_percent(fmean(shares))}{beside}, worst {_percent(worst(shares))}"


def of_small_networks() -> str:
    """One line a backdoor in a network of another kind: what the fast preset leaves of it."""
    rows = []
    for trial in sorted(read(RESULTS / "gtsrb_roi32-small"), key=lambda trial: trial.cell.model):
        original, before, after = trial.original, trial.before, trial.after
        if trial.cell.defense != "pervasive" or original is None or before is None:
            continue
        success = _percent(before.evaluation.attacks[0].success.value)
        left: tuple[str, ...] = ("no backdoor", success, "-", "-")
        if after is not None:
            outcome = after.evaluation.attacks[0]
            left = (
                _percent(after.evaluation.accuracy.value),
                f"{success} to **{_percent(outcome.success.value)}**",
                _percent(outcome.recovered.value),
                f"{_woken(after)} ({_woken(original)})",
            )
        accuracies = (_percent(judged.evaluation.accuracy.value) for judged in (original, before))
        rows.append((trial.cell.model.partition("-")[2], trial.cell.attack, *accuracies, *left))
    head = ("network", "attack", "accuracy before it was planted", "planted", "hardened")
    return _table((*head, "success", "recovered", "woken by fine-tuning"), rows)


def of_others() -> str:
    """One line a model that its authors backdoored: what is left of their backdoor."""
    rows = []
    for path in sorted(RESULTS.glob("ibau-*.json")):
        content = json.loads(path.read_text("utf-8"))
        before, after = (Evaluation.model_validate(content[stage]) for stage in ("before", "after"))
        gain = 100 * (after.accuracy.value - before.accuracy.value)
        rows.append(
            (
                before.attacks[0].name,
                f"{_percent(after.accuracy.value)} ({gain:+.1f})",
                f"{_percent(before.attacks[0].success.value)} to **{_percent(after.attacks[0].success.value)}**",
                f"{_percent(before.attacks[0].recovered.value)} to {_percent(after.attacks[0].recovered.value)}",
            )
        )
    return _table(("trigger", "accuracy", "success", "recovered"), rows)


def on_the_way() -> str:
    """One line a model that was hardened so far, of one that nobody attacked."""
    head = ("hardened", "accuracy", "mean class distance", "increase", "pairs reached")
    content = json.loads((RESULTS / f"{trade_off.NAME}-seed0.json").read_text("utf-8"))
    return _table(head, trade_off.table(content["points"]))


def _woken(judged: Judgement) -> str:
    return _percent(judged.relearned[-1].success.value) if judged.relearned else "-"


def _moved(judged: Judgement) -> str:
    return _percent(judged.perturbed.success.value) if judged.perturbed else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def renew_readme(text: str) -> str:
    """The README with its tables made anew."""
    for folder, reported in REPORTED.items():
        trials = read(RESULTS / folder)
        text = _filled(text, f"{folder} planted", planted(trials, reported))
        text = _filled(text, f"{folder} defended", defended(trials))
    text = _filled(text, "default on all", default_on_all())
    text = _filled(text, "parts", parts(read(RESULTS / "cifar10")))
    text = _filled(text, "trade-off", on_the_way())
    text = _filled(text, "small networks", of_small_networks())
    return _filled(text, "others", of_others())


def _filled(text: str, name: str, table: str) -> str:
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->\n)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)
