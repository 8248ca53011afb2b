"""The model card: a report as the README.md of a Hub repository.

Our part comes first and lies between two comments. What others wrote comes below it, under a heading that says
whose it is: so it can neither hide our part nor pass for it, and the next push finds our part again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phard_hub.hub.metadata import read_metadata, split_card
from phard_hub.hub.names import is_commit, is_repo_id, split_dataset
from phard_hub.release.foreign import (
    END,
    LICENSE,
    LONGEST_TEXT,
    OUR_TAGS,
    START,
    foreign_text,
    neutral,
    owners,
    tags,
    taken_over,
)
from phard_hub.release.public import is_hub_data, last_part, public
from phard_hub.report.distances import Rate
from phard_hub.report.gate import Verdict
from phard_hub.report.record import REPORT_NAME, TESTED_ON, Report, State
from phard_hub.report.views.formats import headline, summary_rows
from phard_hub.report.wording import NOT_FORGOTTEN, flat, pair_name, phase_words, printable

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

PLOTS = {
    "plots/distances.png": "Heat maps of the class distances",
    "plots/success.png": "What universal triggers of each size do",
    "plots/triggers.png": "Triggers that the search found",
    "plots/training.png": "Curves of the hardening",
}
LOCAL_DATA = "other"
"""The type of a data set that is not on the Hub, in model-index."""
_SNIPPETS = {
    "transformers": """\
from transformers import pipeline

# "main" moves: pin the commit that you checked
classify = pipeline("image-classification", model={name}, revision="main")
print(classify("image.png"))""",
    "timm": """\
import timm

model = timm.create_model("hf-hub:" + {name}, pretrained=True).eval()""",
}


def render_card(
    report: Report,
    verdict: Verdict,
    *,
    model_name: str,
    base_card: str | None = None,
    target_card: str | None = None,
    library_name: str = "transformers",
    plots: Sequence[str] = tuple(PLOTS),
    no_gate: str | None = None,
    space: str | None = None,
) -> str:
    """Write the card of a released model.

    Args:
        report: what was measured; the released model is the hardened one if there is one.
        verdict: what the policy says about it.
        model_name: repository id or name of the released model.
        base_card: text of the card of the model that this one was made from. Its licence is taken over; if there
            is no ``target_card``, so are some of its metadata, and its text below our part.
        target_card: text of the card that this one replaces. Its metadata are kept, except for what is ours to
            say, and its text stands below our part.
        library_name: what loads the model: "transformers" or "timm".
        plots: which of `PLOTS` lie beside the card.
        no_gate: why the model is published without asking the gate, if it is.
        space: id of the Space with the web page, where this report can be looked at; None for no link.

    Returns:
        The text of README.md, with metadata that `huggingface_hub.ModelCard` accepts.
    """
    from huggingface_hub import ModelCardData

    report = public(report)
    found, text = split_card(base_card or "")
    base, below = taken_over(found.fields), _Foreign(foreign_text(text), f"the card of {_origin_name(report)}")
    kept = base
    if target_card is not None:
        found, text = split_card(target_card)
        kept, theirs = owners(found.fields) | {"tags": tags(found.fields)}, foreign_text(text)
        if theirs != below.text:
            below = _Foreign(theirs, "the rest of this card, by the owner of this repository")
    elif len(below.text.encode(errors="replace")) > LONGEST_TEXT:
        below = _Foreign("", "")
    library_name = library_name if library_name in _SNIPPETS else "transformers"
    metadata = _with_license(_metadata(report, kept, model_name, library_name), report, base)
    data = ModelCardData(**metadata).to_yaml(original_order=list(found.fields))
    link = _space_link(space, model_name)
    ours = _body(report, verdict, model_name, library_name, plots, no_gate, below.whose, link)
    return f"---\n{data}\n---\n\n{START}\n{neutral(ours)}\n{END}\n" + (f"\n{below.text}" if below.text else "")


@dataclass(frozen=True)
class _Foreign:
    """Text that others wrote, and whose it is."""

    text: str
    origin: str

    @property
    def whose(self) -> str:
        """The heading above it; empty where there is no text."""
        return self.origin[:1].upper() + self.origin[1:] if self.text else ""


def library_of(card: str | None) -> str:
    """What loads the model, as its card says: "timm", or "transformers" if it says anything else."""
    return "timm" if read_metadata(card or "").fields.get("library_name") == "timm" else "transformers"


def _metadata(report: Report, kept: dict[str, Any], model_name: str, library_name: str) -> dict[str, Any]:
    """The metadata of a card, with what we know about the released model put over it."""
    ours: dict[str, Any] = {
        "model_name": model_name,
        "library_name": library_name,
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys([*tags(kept), *OUR_TAGS[: 3 if report.after else 2]])),
        "eval_results": eval_results(report),
    }
    # a pull request to the very model that was hardened: it does not derive from itself
    if is_hub_source(report) and report.after is not None and report.source.repo != model_name:
        ours |= {"base_model": report.source.repo, "base_model_relation": "finetune"}
    return kept | ours


def _with_license(metadata: dict[str, Any], report: Report, base: dict[str, Any]) -> dict[str, Any]:
    """Metadata with the licence of the model that this one was made from, because it goes with the weights."""
    terms = taken_over({"license": report.source.license}) | {key: base[key] for key in LICENSE if key in base}
    return {key: value for key, value in metadata.items() if key not in LICENSE or not terms} | terms


def is_hub_source(report: Report) -> bool:
    """Whether the classifier came from a Hub repository (a local folder has no commit)."""
    return is_commit(report.source.commit) and is_repo_id(report.source.repo)


def eval_results(report: Report) -> list[EvalResult]:
    """The numbers of the released model for the card's model-index; what was not measured is left out."""
    from huggingface_hub import EvalResult

    state = report.after or report.before
    dataset = {"task_type": "image-classification", **_dataset(report.test_dataset)}
    return [
        EvalResult(**dataset, metric_type=kind, metric_name=name, metric_value=round(value, 6), metric_args=args)
        for kind, name, value, args in [*_rates(state), *_distances(state)]
    ]


def _dataset(name: str) -> dict[str, Any]:
    """How model-index names a data set; one without an owner lies on somebody's disk, and has no type of the Hub's."""
    on_hub = split_dataset(name)
    if on_hub is None or not is_repo_id(on_hub.id, owner=True):
        return {"dataset_type": LOCAL_DATA, "dataset_name": _public(name)}
    return {
        "dataset_type": on_hub.id,
        "dataset_name": _public(name),
        "dataset_config": on_hub.config,
        "dataset_revision": on_hub.revision,
    }


Metric = tuple[str, str, float, dict[str, Any]]


def _rates(state: State) -> list[Metric]:
    """Accuracy, robust accuracy and success of each known attack, as shares."""
    evaluation = state.evaluation
    rates: list[tuple[str, str, Rate, dict[str, Any]]] = [("accuracy", "Accuracy", evaluation.accuracy, {})]
    if evaluation.robust_accuracy is not None:
        robust = printable(evaluation.robust_attack or "unnamed attack")
        rates.append(("accuracy", f"Robust accuracy ({robust})", evaluation.robust_accuracy, {"attack": robust}))
    if (votes := state.smoothed) is not None:
        how = {"sigma": votes.sigma, "votes": votes.votes, "alpha": votes.alpha}
        certified = [(f"Certified accuracy (L2 {each.radius:g})", each) for each in votes.at]
        rates += [("accuracy", name, each.accuracy, {**how, "radius": each.radius}) for name, each in certified]
    for attack in evaluation.attacks:
        label = state.distances.labels[attack.target]
        args = {"attack": printable(attack.name), "target": printable(label)}
        rates.append(("attack_success_rate", f"Attack success ({args['attack']})", attack.success, args))
    return [
        (kind, name, rate.value, {**args, "n": rate.n, "low": round(rate.low, 6), "high": round(rate.high, 6)})
        for kind, name, rate, args in rates
        if rate.n
    ]


def _distances(state: State) -> list[Metric]:
    """Mean and smallest class distance in grey levels RMS, where the search reached any pair."""
    distances, smallest = state.distances, state.distances.smallest
    args = {"unit": "grey levels (0-255) RMS", "reached": len(distances.reached), "pairs": len(distances.pairs)}
    metrics: list[Metric] = []
    if distances.mean_rms is not None:
        metrics.append(("class_distance", "Mean class distance", distances.mean_rms, {**args, "of": "mean"}))
    if smallest is not None and smallest.rms is not None:
        pair = pair_name(distances, smallest)
        metrics.append(("class_distance", "Smallest class distance", smallest.rms, {**args, "of": pair}))
    return metrics


def _body(
    report: Report,
    verdict: Verdict,
    model_name: str,
    library_name: str,
    plots: Sequence[str],
    no_gate: str | None,
    below: str,
    link: str,
) -> str:
    """Our part of the card, without its marks; ``below`` is the heading of what comes after it."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701  # Markdown, not HTML: the filter `md` escapes
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["md"] = escape
    state = report.after or report.before
    return environment.get_template("card.md.jinja").render(
        title=escape(model_name.rsplit("/", 1)[-1]),
        origin=_origin(report),
        hardened=report.after is not None,
        hardening=report.hardening,
        phases=[phase_words(phase) for phase in report.hardening.phases] if report.hardening else [],
        settings=list(flat(report.hardening.settings)) if report.hardening else [],
        measured=state.distances,
        environment=report.environment,
        created=f"{report.created:%Y-%m-%d}",
        dataset=escape(TESTED_ON.join(_public(name) for name in report.dataset.split(TESTED_ON)), 200),
        matched=report.matched,
        skipped=report.skipped,
        headline=headline(verdict),
        no_gate=no_gate,
        warnings=report.warnings,
        rows=summary_rows(report),
        plots=[{"path": path, "caption": PLOTS[path]} for path in plots],
        snippet=_snippet(model_name, library_name),
        limits=[*report.limits, NOT_FORGOTTEN] if _nothing_forgotten(report) else report.limits,
        rules=verdict.rules,
        report_name=REPORT_NAME,
        below=below,
        link=link,
        sha256=state.weights_sha256,
    )


def _space_link(space: str | None, model_name: str) -> str:
    """Where the report of a released model can be looked at; empty where there is no Space or no model on the Hub."""
    if not is_repo_id(space, owner=True) or not is_repo_id(model_name, owner=True):
        return ""
    return f"https://huggingface.co/spaces/{space}?report={model_name}"


def _nothing_forgotten(report: Report) -> bool:
    return report.hardening is not None and report.hardening.forgotten is False


def escape(text: str, width: int = 120) -> str:
    """Text as one line of Markdown that means nothing but itself: names come from strangers' files."""
    line = printable(text, width).replace("&", "&amp;").replace("<", "&lt;")
    line = re.sub(r"([\\`*_\[\]|~])", r"\\\1", line)
    # what the Hub makes links, mentions and formulas of without any brackets
    line = line.replace("://", "&#58;//").replace("@", "&#64;").replace("$", "&#36;")
    return re.sub(r"(?i)\bwww\.", "www&#46;", line)


def _origin_name(report: Report) -> str:
    """The id of the model that ours was made from, or its folder's name without the path."""
    return report.source.repo if is_hub_source(report) else last_part(report.source.repo)


def _origin(report: Report) -> str:
    """Where the model came from: a link to the exact commit, or a folder's name without its path."""
    source = report.source
    if not is_hub_source(report):
        return f"the local model {escape(_origin_name(report))}"
    return f"[{escape(source.repo)}](https://huggingface.co/{source.repo}/tree/{source.commit})"


def _public(dataset: str) -> str:
    """A data set's name; of a path only the last part, because cards are public."""
    return printable(dataset if is_hub_data(dataset) else last_part(dataset))


def _snippet(model_name: str, library_name: str) -> str:
    """Code that loads the released model."""
    return _SNIPPETS.get(library_name, _SNIPPETS["transformers"]).format(name=json.dumps(printable(model_name, 200)))
