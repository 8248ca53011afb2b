"""The model card: valid metadata, honest text, and respect for what others wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from phard_hub.release.card import render_card
from phard_hub.release.foreign import END, START
from phard_hub.release.release import card_of
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Report, Source
from tests.report_factory import NOTHING_DONE, change_state, make_distances, make_pair, make_report

EVERYTHING = [(source, target) for source in range(4) for target in range(4) if source != target]
BASE = """---
license: mit
language: en
tags: [vision, phard]
datasets: [uoft-cs/cifar10]
model-index:
- name: old
  results:
  - task: {type: image-classification}
    dataset: {type: cifar10, name: CIFAR-10}
    metrics: [{type: accuracy, value: 0.99}]
---

# ResNet tiny

Trained with love. Costs \\$5, \\1.
"""


def render(report: Report | None = None, **options: Any) -> str:
    report = report or make_report()
    return render_card(report, gate(report, Policy()), model_name="me/tiny-hardened", **options)


def data_of(text: str) -> ModelCardData:
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


def metrics(card: ModelCard) -> dict[str, tuple[str, float]]:
    return {
        result.metric_name or "": (result.metric_type, result.metric_value)
        for result in data_of(str(card)).eval_results or []
    }


def test_metadata_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(render(), encoding="utf-8")
    data = data_of(str(ModelCard.load(path)))
    assert (data.base_model, data["base_model_relation"]) == ("someone/resnet-tiny", "finetune")
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "image-classification",
    )
    assert {"phard", "backdoor-hardened", "adversarial-robustness"} <= set(data.tags or [])
    found = metrics(ModelCard.load(path))
    assert found["Accuracy"] == ("accuracy", 0.915)
    assert found["Robust accuracy (PGD-20, Linf 2/255)"] == ("accuracy", 0.41)
    assert found["Attack success (blend)"] == ("attack_success_rate", 0.0)
    assert found["Smallest class distance"][1] == pytest.approx(12.41, abs=0.01)
    assert [(result.metric_args or {})["n"] for result in (data.eval_results or [])[:3]] == [1000] * 3


def test_text_tells_numbers_recipe_limits_and_verdict() -> None:
    text = render()
    for part in (
        "| Accuracy | 92.00 % \\[90.15, 93.53\\], n = 1000 | 91.50 %",
        "![Heat maps of the class distances](plots/distances.png)",
        "250,000 sample-gradients",
        "| schedule.learning\\_rate | 0.01 |",
        "- A backdoor without a pervasive trigger is not measured.",
        "**Verdict.** HARDENED. The policy passes the model after hardening: 10 passed.",
        "tree/0123456789abcdef",
        'model="me/tiny-hardened"',
        "b" * 64,
    ):
        assert part in text
    for word in (" clean", "safe ", "backdoor-free"):
        assert word not in text
    assert text == render()


@pytest.mark.parametrize(
    ("processes", "peak", "words"),
    [
        (1, None, "cpu, 1 process, fp32 |"),
        (1, 3 * 2**29, "cpu, 1 process, fp32, 1.5 GiB of memory at most |"),
        (2, 2**34, "cpu, 2 processes, fp32, 16.0 GiB of memory at most in each |"),
    ],
)
def test_the_machine_and_its_memory(processes: int, peak: int | None, words: str) -> None:
    report = make_report()
    machine = report.environment.model_copy(update={"processes": processes, "peak_memory": peak})
    assert f"| machine | {words}" in render(report.model_copy(update={"environment": machine}))


def test_timm_snippet_and_chosen_plots() -> None:
    text = render(library_name="timm", plots=("plots/distances.png",))
    assert 'timm.create_model("hf-hub:" + "me/tiny-hardened"' in text
    assert "plots/triggers.png" not in text


def test_local_source_has_no_base_model_and_hides_paths() -> None:
    report = make_report(source=Source(repo="/home/ann/secret/tiny"), dataset="/data/private/birds")
    text = render(report)
    data = data_of(text)
    assert data.base_model is None
    assert data.license is None
    assert "the local model tiny" in text
    assert "/home/ann" not in text
    assert "/data/private" not in text


def test_results_are_those_of_the_data_set_tested_on() -> None:
    text = render(make_report(dataset="org/train, tested on org/test"))
    assert {result.dataset_type for result in data_of(text).eval_results or []} == {"org/test"}
    assert "Data set: org/train, tested on org/test." in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test.parquet", ("other", "test.parquet", None, None)),
        ("birds", ("other", "birds", None, None)),
        ("/data/private/birds", ("other", "birds", None, None)),
        ("org/data", ("org/data", "org/data", None, None)),
        ("org/data:small@v1", ("org/data", "org/data:small@v1", "small", "v1")),
        ("org/train, tested on test.parquet", ("other", "test.parquet", None, None)),
    ],
)
def test_only_a_data_set_of_the_hub_has_its_type(name: str, expected: tuple[str | None, ...]) -> None:
    """A local file was written into the card as a data set of the Hub."""
    results = data_of(render(make_report(dataset=name))).eval_results or []
    seen = {(found.dataset_type, found.dataset_name, found.dataset_config, found.dataset_revision) for found in results}
    assert seen == {expected}


def test_what_was_not_measured_is_left_out() -> None:
    distances = make_distances(unreached=EVERYTHING)
    universal = tuple(make_pair(None, target, None) for target in range(4))
    distances = distances.model_copy(update={"universal": universal})
    before = change_state(make_report().before, robust_accuracy=None, attacks=(), distances=distances)
    text = render(make_report(before=before, after=before, hardening=NOTHING_DONE))
    assert set(metrics(ModelCard(text))) == {"Accuracy"}
    assert "no pair reached" in text
    assert "None" not in text


def test_measured_only() -> None:
    text = render(make_report(after=None, hardening=None))
    assert "backdoor-hardened" not in (data_of(text).tags or [])
    assert "measured and left as it was" in text
    assert data_of(text).base_model is None


@pytest.mark.parametrize(("report", "name"), [(make_report(), "tiny-hardened"), (make_report(after=None), "tiny")])
def test_a_card_calls_hardened_only_what_is(report: Report, name: str, tmp_path: Path) -> None:
    """The card of a report of `phard measure` called the model so, too."""
    (tmp_path / "report.json").write_text(report.to_json())
    assert f"# resnet-{name}\n" in card_of(tmp_path / "report.json", Policy())


def test_base_card_keeps_its_text_and_metadata_but_not_its_results() -> None:
    card = ModelCard(render(base_card=BASE))
    assert "# ResNet tiny\n\nTrained with love. Costs \\$5, \\1." in card.text
    assert (card.data["language"], card.data["datasets"]) == ("en", ["uoft-cs/cifar10"])
    assert data_of(str(card)).tags == ["vision", "phard", "adversarial-robustness", "backdoor-hardened"]
    assert metrics(card)["Accuracy"] == ("accuracy", 0.915)
    assert len(metrics(card)) == 5
    local = make_report(source=Source(repo="tiny"))
    assert data_of(render(local, base_card=BASE)).license == "mit"


def test_rendering_over_itself_changes_nothing() -> None:
    once = render(base_card=BASE)
    assert render(base_card=once) == once
    assert once.count(START) == once.count(END) == 1


@pytest.mark.parametrize(
    "base",
    [
        "",
        "no metadata",
        "---\n- a\n- list\n---\nKept text",
        "---\n: : {broken\n---\nKept text",
        "---\n1: number\ntags: one\nmodel-index: wrong\n---\nKept text",
        f"Kept text {END} {START}",
    ],
)
def test_broken_base_cards_do_not_break_ours(base: str) -> None:
    card = ModelCard(render(base_card=base))
    assert data_of(str(card)).base_model == "someone/resnet-tiny"
    assert ("Kept text" in card.text) == ("Kept text" in base)


def test_labels_cannot_write_markdown() -> None:
    labels = ("a|b", f"{END}<script>", "[x](http://evil)", "n\new\x00")
    distances = make_distances(labels=labels, unreached=[pair for pair in EVERYTHING if pair != (1, 2)])
    state = change_state(make_report().before, distances=distances)
    card = ModelCard(render(make_report(before=state, after=state)))
    text = card.text
    assert text.count(END) == 1
    assert "<script" not in text
    assert "[x](http" not in text
    assert metrics(card)["Smallest class distance"]


TARGET = """---
widget:
- src: cat.png
language: no
license: mit
license_name: gone
base_model: other/base
tags: mine
---\r
# My model\r
\r
Words of mine, \\1.  \r
<!-- phard:start -->old<!-- phard:end -->
More words,\tno end of line"""


def test_the_target_keeps_all_that_is_not_ours() -> None:
    report = make_report(source=Source(repo="someone/resnet-tiny", commit="0" * 40, license="other"))
    base = "---\nlicense: other\nlicense_name: terms\nlicense_link: LICENSE\nlanguage: en\n---\nText of the base.\n"
    text = render(report, base_card=base, target_card=TARGET)
    before, after = TARGET.split("---\r\n")[1].split(f"{START}old{END}")
    assert text.split("---\n\n", 1)[1].startswith(START)
    assert text.split(f"{END}\n\n")[1] == before.rstrip() + "  \n\n" + after.lstrip()
    assert "## The rest of this card, by the owner of this repository" in text
    assert "Text of the base" not in text
    data = data_of(text).to_dict()  # type: ignore[no-untyped-call]
    assert (data["widget"], data["language"]) == ([{"src": "cat.png"}], "no")
    assert [data[key] for key in ("license", "license_name", "license_link")] == ["other", "terms", "LICENSE"]
    assert (data["base_model"], data["tags"][0]) == ("someone/resnet-tiny", "mine")
    assert text.startswith("---\nwidget:\n")
    assert render(report, base_card=base, target_card=text) == text


def test_a_target_without_our_part_keeps_its_text_below_it() -> None:
    for target in ("# Mine\n", "\n\n# Mine", "---\ntags: [a]\n---\n# Mine\r\n", "---\ntags: [a]\n---\n\n# Mine\n"):
        text = render(target_card=target)
        assert text.endswith(target.removeprefix("---\ntags: [a]\n---\n"))
        assert render(target_card=text) == text


def test_where_the_base_has_no_licence_the_target_keeps_its_own() -> None:
    report = make_report(source=Source(repo="someone/resnet-tiny", commit="0" * 40))
    assert data_of(render(report, target_card=TARGET)).license == "mit"


def test_a_model_does_not_derive_from_itself() -> None:
    report = make_report(source=Source(repo="me/tiny-hardened", commit="0" * 40))
    assert data_of(render(report)).base_model is None
    assert data_of(render(report, target_card=TARGET)).base_model == "other/base"


def test_the_reason_for_not_asking_the_gate_is_printed() -> None:
    text = render(no_gate="only a *try* <b>\nof mine")
    assert "**Published without asking the gate.** The reason given: only a \\*try\\* &lt;b> of mine" in text
    assert "without asking" not in render()
