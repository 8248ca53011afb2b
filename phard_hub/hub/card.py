"""The model card: a report as the README.md of a Hub repository.

Our part lies between two comments, so that a card that somebody else wrote keeps all its other text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phard_hub.report.formats import headline, summary_rows
from phard_hub.report.gate import Verdict
from phard_hub.report.record import REPORT_NAME, Rate, Report, State
from phard_hub.report.wording import pair_name, printable

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

START, END = "<!-- phard:start -->", "<!-- phard:end -->"
PLOTS = {
    "plots/distances.png": "Heat maps of the class distances",
    "plots/triggers.png": "Triggers that the search found",
    "plots/training.png": "Curves of the hardening",
}
_OURS = re.compile(f"{START}.*?{END}", re.DOTALL)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
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
    library_name: str = "transformers",
    plots: Sequence[str] = tuple(PLOTS),
) -> str:
    """Write the card of a released model.

    Args:
        report: what was measured; the released model is the hardened one if there is one.
        verdict: what the policy says about it.
        model_name: repository id or name of the released model.
        base_card: text of the card to build on; its metadata and its text outside our part are kept,
            except for its results, which are about other weights.
        library_name: what loads the model: "transformers" or "timm".
        plots: which of `PLOTS` lie beside the card.

    Returns:
        The text of README.md, with metadata that `huggingface_hub.ModelCard` accepts.
    """
    from huggingface_hub import ModelCardData

    metadata, text = _split(base_card) if base_card and base_card.strip() else ({}, "")
    data = ModelCardData(**_metadata(report, metadata, model_name, library_name))
    ours = _body(report, verdict, model_name, library_name, plots)
    # a function as replacement: backslashes in a label are no group references
    body = _OURS.sub(lambda _: ours, text, count=1) if _OURS.search(text) else f"{ours}\n{text}"
    return f"---\n{data.to_yaml()}\n---\n\n{body.strip()}\n"


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Metadata and text of a card; metadata that is no valid YAML is dropped, its text never."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        parsed = ModelCard(card, ignore_metadata_errors=True)
    except (ValueError, TypeError, yaml.YAMLError):  # TypeError: a key that is no string
        return {}, re.sub(r"\A\s*---\n.*?\n---\s*\n", "", card, count=1, flags=re.DOTALL)
    return dict(parsed.data.to_dict()), parsed.text  # type: ignore[no-untyped-call]


def _metadata(report: Report, base: dict[str, Any], model_name: str, library_name: str) -> dict[str, Any]:
    """The metadata of the base card, with what we know about the released model put over it."""
    tags = ["phard", "adversarial-robustness"] + (["backdoor-hardened"] if report.after else [])
    kept = {key: value for key, value in base.items() if key not in ("model-index", "tags", "model_name")}
    ours: dict[str, Any] = {
        "model_name": model_name,
        "library_name": library_name,
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys([*_as_list(base.get("tags")), *tags])),
        "eval_results": eval_results(report),
    }
    if report.source.license:
        ours["license"] = report.source.license
    if is_hub_source(report) and report.after is not None:
        ours |= {"base_model": report.source.repo, "base_model_relation": "finetune"}
    return kept | ours


def _as_list(tags: object) -> list[str]:
    """Tags of a foreign card, which may be a list, a single word or nothing."""
    if isinstance(tags, str):
        return [tags]
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def is_hub_source(report: Report) -> bool:
    """Whether the classifier came from a Hub repository (a local folder has no commit)."""
    return report.source.commit is not None and _HUB_ID.fullmatch(report.source.repo) is not None


def eval_results(report: Report) -> list[EvalResult]:
    """The numbers of the released model for the card's model-index; what was not measured is left out."""
    from huggingface_hub import EvalResult

    state = report.after or report.before
    dataset: dict[str, Any] = {
        "task_type": "image-classification",
        "dataset_type": report.dataset if _HUB_ID.fullmatch(report.dataset) else "other",
        "dataset_name": _dataset_name(report),
    }
    return [
        EvalResult(**dataset, metric_type=kind, metric_name=name, metric_value=round(value, 6), metric_args=args)
        for kind, name, value, args in [*_rates(state), *_distances(state)]
    ]


Metric = tuple[str, str, float, dict[str, Any]]


def _rates(state: State) -> list[Metric]:
    """Accuracy, robust accuracy and success of each known attack, as shares."""
    evaluation = state.evaluation
    rates: list[tuple[str, str, Rate, dict[str, Any]]] = [("accuracy", "Accuracy", evaluation.accuracy, {})]
    if evaluation.robust_accuracy is not None:
        robust = printable(evaluation.robust_attack or "unnamed attack")
        rates.append(("accuracy", f"Robust accuracy ({robust})", evaluation.robust_accuracy, {"attack": robust}))
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


def _body(report: Report, verdict: Verdict, model_name: str, library_name: str, plots: Sequence[str]) -> str:
    """Our part of the card, with its marks."""
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
        measured=state.distances,
        environment=report.environment,
        created=f"{report.created:%Y-%m-%d}",
        dataset=escape(_dataset_name(report)),
        headline=headline(verdict),
        rows=summary_rows(report),
        plots=[{"path": path, "caption": PLOTS[path]} for path in plots],
        snippet=_snippet(model_name, library_name),
        limits=report.limits,
        rules=verdict.rules,
        report_name=REPORT_NAME,
        sha256=state.weights_sha256,
    )


def escape(text: str, width: int = 120) -> str:
    """Text as one line of Markdown that means nothing but itself: names come from strangers' files."""
    line = printable(text, width).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line)


def _origin(report: Report) -> str:
    """Where the model came from: a link to the exact commit, or a folder's name without its path."""
    source = report.source
    if not is_hub_source(report):
        return f"the local model {escape(Path(source.repo).name)}"
    return f"[{escape(source.repo)}](https://huggingface.co/{source.repo}/tree/{source.commit})"


def _dataset_name(report: Report) -> str:
    """The data set's name; of a path only the last part, because cards are public."""
    name = report.dataset
    return printable(name if _HUB_ID.fullmatch(name) else Path(name).name or name)


def _snippet(model_name: str, library_name: str) -> str:
    """Code that loads the released model."""
    return _SNIPPETS.get(library_name, _SNIPPETS["transformers"]).format(name=json.dumps(printable(model_name, 200)))
