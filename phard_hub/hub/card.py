"""The model card: a report as the README.md of a Hub repository.

Our part lies between two comments, so that a card that somebody else wrote keeps all its other text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from phard_hub.report.formats import headline, summary_rows
from phard_hub.report.gate import Verdict
from phard_hub.report.record import REPORT_NAME, TESTED_ON, Rate, Report, State
from phard_hub.report.wording import flat, pair_name, printable

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

START, END = "<!-- phard:start -->", "<!-- phard:end -->"
PLOTS = {
    "plots/distances.png": "Heat maps of the class distances",
    "plots/triggers.png": "Triggers that the search found",
    "plots/training.png": "Curves of the hardening",
}
_LICENSE = ("license", "license_name", "license_link")
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
    target_card: str | None = None,
    library_name: str = "transformers",
    plots: Sequence[str] = tuple(PLOTS),
    no_gate: str | None = None,
) -> str:
    """Write the card of a released model.

    Args:
        report: what was measured; the released model is the hardened one if there is one.
        verdict: what the policy says about it.
        model_name: repository id or name of the released model.
        base_card: text of the card of the model that this one was made from. Its licence is taken over, and
            so is the rest of its metadata and its text if there is no ``target_card``.
        target_card: text of the card that this one replaces. Its metadata and every character outside our
            part are kept, except for its results, which are about other weights.
        library_name: what loads the model: "transformers" or "timm".
        plots: which of `PLOTS` lie beside the card.
        no_gate: why the model is published without asking the gate, if it is.

    Returns:
        The text of README.md, with metadata that `huggingface_hub.ModelCard` accepts.
    """
    from huggingface_hub import ModelCardData

    base, base_text = _split(base_card or "")
    kept, text = _split(target_card) if target_card is not None else (base, base_text)
    metadata = _with_license(_metadata(report, kept, model_name, library_name), report, base)
    data = ModelCardData(**metadata).to_yaml(original_order=list(kept))
    ours = _body(report, verdict, model_name, library_name, plots, no_gate)
    if _OURS.search(text):
        # a function as replacement: backslashes in a label are no group references
        return f"---\n{data}\n---\n{_OURS.sub(lambda _: ours, text, count=1)}"
    gap = "\n" if text.strip() and not text.startswith(("\n", "\r")) else ""
    return f"---\n{data}\n---\n\n{ours}\n{gap}{text}"


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Metadata (in its order) and text of a card; metadata that is no valid YAML is dropped, the text never."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(card)
    if block is None:
        return {}, card
    try:
        found = yaml.load(block[2], _Metadata)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError:
        found = None
    metadata = found if isinstance(found, dict) else {}
    return {key: value for key, value in metadata.items() if isinstance(key, str)}, card[block.end() :]


class _Metadata(yaml.SafeLoader):
    """YAML as the Hub reads it: `language: no` is Norwegian, where YAML 1.1 says false."""


_BOOL = "tag:yaml.org,2002:bool"
_Metadata.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Metadata.add_implicit_resolver(_BOOL, re.compile(r"(true|false)\Z", re.IGNORECASE), list("tTfF"))


def library_of(card: str | None) -> str:
    """What loads the model, as its card says: "timm", or "transformers" if it says nothing."""
    return str(_split(card or "")[0].get("library_name") or "transformers")


def _metadata(report: Report, base: dict[str, Any], model_name: str, library_name: str) -> dict[str, Any]:
    """The metadata of a card, with what we know about the released model put over it."""
    tags = ["phard", "adversarial-robustness"] + (["backdoor-hardened"] if report.after else [])
    kept = {key: value for key, value in base.items() if key not in ("model-index", "tags", "model_name")}
    ours: dict[str, Any] = {
        "model_name": model_name,
        "library_name": library_name,
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys([*_as_list(base.get("tags")), *tags])),
        "eval_results": eval_results(report),
    }
    # a pull request to the very model that was hardened: it does not derive from itself
    if is_hub_source(report) and report.after is not None and report.source.repo != model_name:
        ours |= {"base_model": report.source.repo, "base_model_relation": "finetune"}
    return kept | ours


def _with_license(metadata: dict[str, Any], report: Report, base: dict[str, Any]) -> dict[str, Any]:
    """Metadata with the licence of the model that this one was made from, for it goes with the weights."""
    terms = {key: base[key] for key in _LICENSE if key in base}
    if report.source.license:
        terms.setdefault("license", report.source.license)
    return {key: value for key, value in metadata.items() if key not in _LICENSE or not terms} | terms


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
        "dataset_type": report.test_dataset if _HUB_ID.fullmatch(report.test_dataset) else "other",
        "dataset_name": _public(report.test_dataset),
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


def _body(
    report: Report,
    verdict: Verdict,
    model_name: str,
    library_name: str,
    plots: Sequence[str],
    no_gate: str | None,
) -> str:
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
        settings=list(flat(report.hardening.settings)) if report.hardening else [],
        measured=state.distances,
        environment=report.environment,
        created=f"{report.created:%Y-%m-%d}",
        dataset=escape(TESTED_ON.join(_public(name) for name in report.dataset.split(TESTED_ON)), 200),
        headline=headline(verdict),
        no_gate=no_gate,
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


def _public(dataset: str) -> str:
    """A data set's name; of a path only the last part, because cards are public."""
    return printable(dataset if _HUB_ID.fullmatch(dataset) else Path(dataset).name or dataset)


def _snippet(model_name: str, library_name: str) -> str:
    """Code that loads the released model."""
    return _SNIPPETS.get(library_name, _SNIPPETS["transformers"]).format(name=json.dumps(printable(model_name, 200)))
