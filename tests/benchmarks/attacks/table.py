"""The tables of results of attacks, made of the trials alone, beside the figures that others report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean

from phard_hub.report.record import Evaluation
from phard_hub.report.trial import Trial
from tests.benchmarks import trade_off, trigger_parts
from tests.benchmarks.attacks import rivals
from tests.benchmarks.attacks.outcomes import MEASURES, PATCHES, Left, Planted, grouped, lefts_of, mean_of, read
from tests.benchmarks.records import RESULTS

PAGE = Path(__file__).parents[1] / "RESULTS.md"
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
HONEST = ("cifar10-hardening",)
PARTS_ATTACKS = ("blend", "sig", "dfst")
PARTS = (
    ("bank-alone", 1.0),
    ("feature-shift", 1.0),
    ("pervasive", 1.0),
    ("sharpness-aware", 0.05),
    ("no-single-kinds", 0.05),
    ("pervasive", 0.05),
)
"""Defenses with their shares of the images, and the attacks that they are compared over."""


def planted(trials: Sequence[Trial], reported: Mapping[str, Mapping[str, str]]) -> str:
    """One line an attack, means over seeds: what the backdoor does, and whether the search sees its target."""
    rows = []
    for attack, same in grouped(trials, lambda trial: trial.cell.attack).items():
        seeds = {trial.cell.seed: made for trial in same if (made := Planted.of(trial))}  # all defenses share it
        if not seeds:
            continue
        mean = Planted._make(map(fmean, zip(*seeds.values(), strict=True)))
        rows.append(
            (
                attack,
                str(len(seeds)),
                f"{mean.rms:.1f}",
                f"{mean.ssim:.2f}",
                str(same[-1].config["attack"]["planting"]["steps"]),
                f"{_percent(mean.accuracy)} ({100 * mean.gain:+.1f})",
                _percent(mean.success),
                _percent(mean.success_honest),
                *(figures.get(same[-1].config["attack"]["name"], "") for figures in reported.values()),
                ", ".join("-" if isnan(each.rank) else f"{each.rank:.0f}" for _, each in sorted(seeds.items())),
            )
        )
    head = ("attack", "seeds", "grey levels", "SSIM", "steps", "accuracy", "success", "on the original")
    return _table((*head, *reported, "rank of the target"), rows)


def defended(trials: Sequence[Trial]) -> str:
    """One line an attack and defense, means over seeds: what is left of the backdoor, and how soon it is back."""
    rows = []
    groups = grouped(trials, lambda trial: (trial.cell.attack, trial.cell.data_share, trial.cell.defense))
    for (attack, share, defense), same in groups.items():
        seeds = lefts_of(same).get(attack)
        if seeds is None:
            continue
        mean, worst = mean_of(seeds), max(left.success for left in seeds)
        rows.append(
            (
                attack,
                defense,
                f"{100 * share:g} %",
                str(len(seeds)),
                f"{_percent(mean.accuracy)} ({100 * mean.gain:+.1f})",
                f"{_percent(mean.planted)} to **{_percent(mean.success)}**"
                + (f", worst {_percent(worst)}" if len(seeds) > 1 else ""),
                _percent(mean.recovered),
                f"{_percent(mean.woken)} ({_percent(mean.woken_honest)})",
                f"{_percent(mean.moved)} ({_percent(mean.moved_honest)})",
            )
        )
    head = ("attack", "defense", "images", "seeds", "accuracy", "success", "recovered", "re-activated by fine-tuning")
    return _table((*head, "by a perturbation"), rows)


def default_on_all() -> str:
    """One line a network and a share of the images: the default over all pervasive backdoors."""
    trials = [trial for folder in FOLDERS for trial in read(RESULTS / folder)]
    default = [t for t in trials if t.cell.defense == "pervasive" and t.cell.attack not in PATCHES and t.outcome]
    rows = []
    groups = grouped(default, lambda trial: (trial.cell.model, -trial.cell.data_share))
    for (model, share), same in sorted(groups.items()):
        lefts = lefts_of(same)
        rows.append(
            (
                model,
                f"{-100 * share:g} %",
                str(len(lefts)),
                str(len(same)),
                *(measure.over(lefts) for measure in MEASURES),
            )
        )
    return _table(("network", "images", "attacks", "models", *(measure.name for measure in MEASURES)), rows)


def parts(trials: Sequence[Trial]) -> str:
    """One line a defense: over the attacks, and with the seed, that all of these were tried on."""
    rows = []
    same = [trial for trial in trials if trial.cell.attack in PARTS_ATTACKS and trial.cell.seed == 0]
    for defense, share in PARTS:
        lefts = lefts_of([t for t in same if (t.cell.defense, t.cell.data_share) == (defense, share)])
        if len(lefts) == len(PARTS_ATTACKS):
            rows.append((defense, f"{100 * share:g} %", *(measure.over(lefts) for measure in MEASURES)))
    return _table(("defense", "images", *(measure.name for measure in MEASURES)), rows)


def of_small_networks() -> str:
    """One line a backdoor in a network of another kind: what the fast preset leaves of it."""
    rows = []
    for trial in sorted(read(RESULTS / "gtsrb_roi32-small"), key=lambda trial: trial.cell.model):
        made, left = Planted.of(trial), Left.of(trial)
        if trial.cell.defense != "pervasive" or made is None:
            continue
        hardened: tuple[str, ...] = ("no backdoor", _percent(made.success), "-", "-")
        if left is not None:
            hardened = (
                _percent(left.accuracy),
                f"{_percent(left.planted)} to **{_percent(left.success)}**",
                _percent(left.recovered),
                f"{_percent(left.woken)} ({_percent(left.woken_honest)})",
            )
        accuracies = (_percent(made.accuracy - made.gain), _percent(made.accuracy))
        rows.append((trial.cell.model.partition("-")[2], trial.cell.attack, *accuracies, *hardened))
    head = ("network", "attack", "accuracy before it was planted", "planted", "hardened")
    return _table((*head, "success", "recovered", "re-activated by fine-tuning"), rows)


def of_others() -> str:
    """One line a model that its authors backdoored: what is left of their backdoor."""
    rows = []
    for path in sorted(RESULTS.glob("ibau-*.json")):
        content = json.loads(path.read_text("utf-8"))
        before, after = (Evaluation.from_fields(content[stage]) for stage in ("before", "after"))
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


def of_trigger_parts() -> tuple[str, str]:
    """What each set of parts of the trigger finds, and what it explains."""
    content = json.loads((RESULTS / f"{trigger_parts.NAME}-seed0.json").read_text("utf-8"))
    head = ("parts", "original", "hardened", "increase", "reached both times", "seconds")
    found = _table(head, trigger_parts.smallest_found(content))
    return found, _table(("attack", *content["explained"]), trigger_parts.expressed(content))


def _percent(share: float) -> str:
    return "-" if isnan(share) else f"{100 * share:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def renew_page(text: str) -> str:
    """The page of results with its tables made anew."""
    for folder, reported in REPORTED.items():
        trials = read(RESULTS / folder)
        text = _filled(text, f"{folder} planted", planted(trials, reported))
        text = _filled(text, f"{folder} defended", defended(trials))
    text = _filled(text, "default on all", default_on_all())
    text = _filled(text, "parts", parts(read(RESULTS / "cifar10")))
    text = _filled(text, "trade-off", on_the_way())
    for name, table in zip(("parts of the trigger", "explained"), of_trigger_parts(), strict=True):
        text = _filled(text, name, table)
    text = _filled(text, "small networks", of_small_networks())
    for folder in HONEST:
        text = _filled(text, folder, _table(rivals.head(), rivals.hardened(read(RESULTS / folder))))
    return _filled(text, "others", of_others())


def _filled(text: str, name: str, table: str) -> str:
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->\n)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)
