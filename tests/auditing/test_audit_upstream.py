"""A model against the one it was made from, which comes over the Hub's protocol."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from phard_hub.auditing import Audit, audit
from phard_hub.auditing.upstream import compare, find
from phard_hub.errors import HubUnavailableError, RepoError
from phard_hub.hub.names import split_revision
from phard_hub.hub.pull import pull
from phard_hub.models.loading import load
from phard_hub.report.record import Finding
from tests.auditing.checkpoints import LABELS, config, model_args, save_vit, set_json, write_card
from tests.hub_server import Hub

TIMM: dict[str, Any] = {
    "architecture": "test_vit",
    "num_classes": 4,
    "label_names": list(LABELS),
    "model_args": {"img_size": 32, "num_classes": 4},
    "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "num_classes": 4},
}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny vision transformer; do not change it."""
    return save_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def model(vit: Path, tmp_path: Path) -> Path:
    """A copy whose card names org/base."""
    folder = shutil.copytree(vit, tmp_path / "model")
    write_card(folder, "base_model: org/base")
    return folder


@pytest.fixture
def base(hub: Hub, vit: Path) -> str:
    """The upstream model on the Hub; its only commit."""
    return hub.create("org/base", vit)


def as_timm(folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps(TIMM))
    return folder


def full(folder: Path | str, upstream: str | None = None, **options: Any) -> Audit:
    return audit(pull(str(folder)), upstream, **options)


def of_config(folder: Path, upstream: str | None = None, allow: Sequence[str] = ()) -> list[Finding]:
    """What is seen of a folder's config alone, whatever its weights are."""
    snapshot = pull(str(folder))
    theirs, found = find(snapshot, upstream)
    return [*found, *compare(snapshot, theirs, given=upstream is not None, allow=allow)]


def seen(result: Audit | list[Finding]) -> list[tuple[str, str]]:
    findings = result.findings if isinstance(result, Audit) else result
    return [(finding.id, finding.severity) for finding in findings]


def test_a_copy_as_it_was_is_loaded(model: Path, base: str) -> None:
    result = full(model)
    assert result.findings == ()
    assert result.upstream is not None
    assert (result.upstream.repo, result.upstream.commit) == ("org/base", base)
    assert load(result).labels == LABELS


def test_another_activation_is_loaded_without_a_word_and_computes_something_else(model: Path, vit: Path) -> None:
    from transformers import AutoModelForImageClassification

    config(hidden_act="silu")(model)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    honest, changed = (AutoModelForImageClassification.from_pretrained(folder) for folder in (vit, model))
    with torch.no_grad():
        assert not torch.allclose(honest(pixels).logits, changed(pixels).logits, atol=1e-4)
    (found,) = of_config(model, str(vit))
    assert (found.id, found.severity) == ("PH-A20", "error")
    assert "hidden_act is 'silu'" in found.evidence
    assert "has 'gelu'" in found.evidence


def test_classes_in_another_order_are_a_warning(model: Path, base: str) -> None:
    config(id2label=dict(enumerate(("dog", "cat", "owl", "fox"))), label2id=None)(model)
    result = full(model)
    assert seen(result) == [("PH-A23", "warning")]
    assert "'dog' is class 0; org/base" in result.findings[0].evidence
    assert "has it as 1; 2 such" in result.findings[0].evidence
    result.require()


@pytest.mark.parametrize("names", [("eel", "ant", "bee", "elk"), ("cat", "dog", "owl"), ("cat", "eel", "owl", "elk")])
def test_other_classes_are_no_finding(model: Path, base: str, names: tuple[str, ...]) -> None:
    config(id2label=dict(enumerate(names)), label2id=None)(model)
    assert of_config(model) == []


@pytest.mark.parametrize(
    "entries",
    [
        {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.1},
        {"image_size": 64, "problem_type": "single_label_classification"},
        {"transformers_version": "4.2.0", "torch_dtype": "float16", "_name_or_path": "/tmp/x", "my_own_field": 1},
    ],
)
def test_what_an_honest_copy_changes(model: Path, base: str, entries: dict[str, Any]) -> None:
    config(**entries)(model)
    assert of_config(model) == []


def test_fields_left_out_are_the_defaults_of_the_class(model: Path, base: str) -> None:
    content = json.loads((model / "config.json").read_text())
    for name in ("hidden_act", "layer_norm_eps", "qkv_bias"):
        del content[name]
    (model / "config.json").write_text(json.dumps(content))
    assert full(model).findings == ()


@pytest.mark.parametrize("field", ["hidden_act", "num_hidden_layers"])
def test_what_the_user_knows_becomes_a_note(model: Path, base: str, field: str) -> None:
    config(hidden_act="silu")(model)
    result = of_config(model, allow=(field,))
    assert seen(result) == [("PH-A20", "note" if field == "hidden_act" else "error")]


def test_other_colours_are_a_warning(model: Path, base: str) -> None:
    set_json("preprocessor_config.json", image_mean=[0.1, 0.2, 0.3], size={"height": 64, "width": 64})(model)
    (found,) = of_config(model)
    assert (found.id, found.severity) == ("PH-A24", "warning")
    assert "image_mean is [0.1, 0.2, 0.3]" in found.evidence


def test_images_of_a_size_that_the_network_does_not_take(model: Path, base: str) -> None:
    set_json("preprocessor_config.json", size={"height": 64, "width": 64})(model)
    (found,) = full(model).errors
    assert found.id == "PH-A19"
    assert "cannot classify images of 64 x 64" in found.evidence


# Which model it is compared with


def test_a_given_upstream_counts_more_than_the_card(
    model: Path, base: str, hub: Hub, vit: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(vit, tmp_path / "other")
    config(hidden_act="relu")(other)
    hub.create("org/other", other)
    assert seen(full(model, "org/other")) == [("PH-A20", "error")]


def test_a_given_upstream_may_be_pinned(model: Path, base: str, hub: Hub) -> None:
    changed = json.loads((model / "config.json").read_text()) | {"hidden_act": "relu"}
    hub.commit("org/base", {"config.json": json.dumps(changed)})
    assert seen(full(model, f"org/base@{base}")) == [("PH-A40", "note")]  # all tensors are the same
    assert seen(full(model, "org/base@main")) == [("PH-A20", "error")]


def test_only_configs_and_the_card_of_the_upstream_are_downloaded(model: Path, base: str, hub: Hub) -> None:
    full(model)
    asked = {request.path.rsplit("/", 1)[-1] for request in hub.log if "/resolve/" in request.path}
    assert asked == {"config.json", "preprocessor_config.json"}


def test_an_upstream_of_pickles_is_good_enough(model: Path, hub: Hub, vit: Path) -> None:
    hub.create("org/base", {"config.json": (vit / "config.json").read_bytes(), "pytorch_model.bin": b"pickle"})
    assert full(model).findings == ()


def test_a_given_upstream_of_pickles_is_compared_by_its_config_alone(model: Path, hub: Hub, vit: Path) -> None:
    hub.create("org/base", {"config.json": (vit / "config.json").read_bytes(), "pytorch_model.bin": b"pickle"})
    (found,) = full(model, "org/base").findings
    assert (found.id, found.severity) == ("PH-A40", "note")
    assert "the tensors were compared with nothing: org/base" in found.evidence


def test_a_given_upstream_that_is_not_there_is_an_error(model: Path, hub: Hub) -> None:
    with pytest.raises(RepoError, match="no model org/nowhere"):
        full(model, "org/nowhere")
    with hub.down(), pytest.raises(HubUnavailableError):
        full(model, "org/base")


def test_without_an_upstream_the_audit_says_what_it_compared_with_nothing(model: Path) -> None:
    (model / "README.md").unlink()
    result = full(model)
    assert seen(result) == [("PH-A27", "note")]
    assert "class names" in result.findings[0].evidence
    assert result.upstream is None
    result.require()


def test_without_an_upstream_an_unusual_activation_is_a_warning(model: Path) -> None:
    (model / "README.md").unlink()
    config(hidden_act="silu")(model)
    assert seen(full(model)) == [("PH-A25", "warning"), ("PH-A27", "note")]
    assert seen(full(model, allow=("hidden_act",))) == [("PH-A25", "note"), ("PH-A27", "note")]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("base_model: [org/base, org/other]", "names several: org/base, org/other"),
        ("base_model: org/gone", "no model org/gone"),
        ("base_model: ./results/checkpoint-500", "is no id of a model on the Hub"),
        ("base_model: {a: 1}", "is no id of a model on the Hub"),
    ],
)
def test_a_card_whose_upstream_cannot_be_compared_with(model: Path, base: str, metadata: str, expected: str) -> None:
    write_card(model, metadata)
    result = full(model)
    assert seen(result) == [("PH-A26", "warning"), ("PH-A27", "note")]
    assert expected in result.findings[0].evidence


def test_a_card_does_not_choose_a_local_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vit: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(vit, tmp_path / "org" / "base")
    result = full(model)
    assert seen(result) == [("PH-A26", "warning"), ("PH-A27", "note")]
    assert "no model org/base on the Hub" in result.findings[0].evidence


def test_a_card_does_not_compare_a_model_with_itself(
    model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_card(model, "base_model: ~/model")
    result = full(model)
    assert seen(result) == [("PH-A26", "warning"), ("PH-A27", "note")]
    assert "is no id of a model on the Hub" in result.findings[0].evidence
    assert hub.log == []


def test_a_model_is_not_its_own_upstream(model: Path, hub: Hub) -> None:
    hub.create("org/base", model)
    assert seen(full("org/base")) == [("PH-A26", "warning"), ("PH-A27", "note")]


def test_the_hub_is_down_for_the_upstream_of_the_card(model: Path, hub: Hub) -> None:
    with hub.down():
        result = full(model)
    assert seen(result) == [("PH-A26", "warning"), ("PH-A27", "note")]
    assert "did not give org/base" in result.findings[0].evidence


@pytest.mark.parametrize("content", [b"{broken", b"[]", b'{"hidden_act": 5, "model_type": "vit"}'])
def test_an_upstream_whose_config_is_broken(model: Path, hub: Hub, content: bytes) -> None:
    hub.create("org/base", {"config.json": content})
    assert seen(full(model)) == [("PH-A26", "warning"), ("PH-A27", "note")]
    (error,) = full(model, "org/base").errors
    assert (error.id, "org/base" in error.evidence) == ("PH-A26", True)


@pytest.mark.parametrize("head", [b"", b"---\nbase_model:\n---\n", b"\xff\xfe", b"---\n", b"---\nlicense: mit\n---\n"])
def test_cards_that_name_nothing(model: Path, hub: Hub, head: bytes) -> None:
    (model / "README.md").write_bytes(head)
    assert seen(full(model)) == [("PH-A27", "note")]


BOMB = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n + 1, n + 1, n, n) for n in range(97, 120))


@pytest.mark.parametrize("block", [b"[unclosed", b"- base_model", BOMB, b"a: !!python/name:os.system", b"[" * 60_000])
def test_metadata_that_cannot_be_read(model: Path, hub: Hub, block: bytes) -> None:
    (model / "README.md").write_bytes(b"---\nbase_model: org/base\n" + block + b"\n---\n")
    result = full(model)
    assert seen(result) == [("PH-A26", "warning"), ("PH-A27", "note")]
    assert "metadata of the card cannot be read" in result.findings[0].evidence
    assert hub.log == []


def test_a_card_of_any_size(model: Path, base: str) -> None:
    with (model / "README.md").open("ab") as file:
        file.truncate(200 * 2**20)
    assert seen(full(model)) == [("PH-A32", "note"), ("PH-A27", "note")]


def test_names_and_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a@b").mkdir()
    assert split_revision("org/model@v1") == ("org/model", "v1")
    assert split_revision("org/model") == ("org/model", None)
    assert split_revision("a@b") == ("a@b", None)


# All families


def model_types() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    return [name for name in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES if name != "timm_wrapper"]


def activations(fields: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each place in a config, however deep, that names an activation."""
    from transformers.activations import ACT2FN

    for key, value in fields.items():
        if isinstance(value, dict):
            yield from activations(value)
        elif isinstance(value, str) and value in ACT2FN:
            yield fields, key


def compared(folder: Path, upstream: Path | None = None, allow: Sequence[str] = ()) -> list[tuple[str, str]]:
    """What is seen in a folder in which nothing but a config lies."""
    theirs = pull(str(upstream)) if upstream else None
    found = compare(pull(str(folder)), theirs, given=upstream is not None, allow=allow)
    return [(finding.id, finding.severity) for finding in found]


@pytest.mark.parametrize("model_type", model_types())
def test_any_activation_of_any_family(model_type: str, tmp_path: Path) -> None:
    from transformers import CONFIG_MAPPING

    upstream, model = tmp_path / "upstream", tmp_path / "model"
    for folder in (upstream, model):
        CONFIG_MAPPING[model_type]().save_pretrained(folder)
    assert compared(model, upstream) == []
    assert compared(model) == [("PH-A27", "note")]
    content = json.loads((model / "config.json").read_text())
    for fields, key in activations(content):
        usual, fields[key] = fields[key], "mish"
        (model / "config.json").write_text(json.dumps(content))
        assert compared(model, upstream) == [("PH-A20", "error")]
        assert compared(model, upstream, allow=[key]) == [("PH-A20", "note")]
        assert compared(model) == [("PH-A25", "warning"), ("PH-A27", "note")]
        fields[key] = usual


# timm


def test_timm_arguments_that_change_what_is_computed(model: Path) -> None:
    model_args(act_layer="relu", drop_path_rate=0.1)(as_timm(model))
    result = of_config(model)
    assert [(error.id, error.evidence.split(";")[0]) for error in result if error.severity == "error"] == [
        ("PH-A22", "model_args.act_layer is 'relu'")
    ]
    allowed = of_config(model, allow=("act_layer",))
    assert ("PH-A22", "note") in seen(allowed)
    assert ("PH-A22", "error") not in seen(allowed)


def test_timm_arguments_of_the_upstream(model: Path, hub: Hub) -> None:
    model_args(act_layer="relu")(as_timm(model))
    hub.create("org/base", {"config.json": (model / "config.json").read_bytes()})
    assert of_config(model) == []
    as_timm(model)
    assert seen(of_config(model)) == [("PH-A22", "error")]


def test_another_timm_architecture(model: Path, hub: Hub) -> None:
    hub.create("org/base", {"config.json": json.dumps({**TIMM, "architecture": "test_vit2"})})
    assert seen(of_config(as_timm(model))) == [("PH-A21", "error")]


def test_timm_colours_and_classes(model: Path, hub: Hub) -> None:
    theirs = {**TIMM, "label_names": ["dog", "cat", "owl", "fox"]}
    theirs["pretrained_cfg"] = {**TIMM["pretrained_cfg"], "mean": [0.4, 0.4, 0.4]}
    hub.create("org/base", {"config.json": json.dumps(theirs)})
    result = of_config(as_timm(model))
    assert seen(result) == [("PH-A23", "warning"), ("PH-A24", "warning")]
