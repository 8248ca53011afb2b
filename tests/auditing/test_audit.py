"""Each thing that the audit must see, in a copy of a checkpoint that is otherwise in order."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phard_hub import auditing
from phard_hub.auditing import Audit, audit
from phard_hub.errors import AuditError
from phard_hub.hub.pull import pull
from phard_hub.hub.snapshot import Snapshot
from phard_hub.report.record import Finding
from tests.command import Phard
from tests.hub_server import Hub


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def noticed(result: Audit) -> list[Finding]:
    """All findings but the note that there is nothing to compare with, which all of these models have."""
    return [finding for finding in result.findings if finding.id != "PH-A27"]


def ids(result: Audit) -> set[str]:
    return {finding.id for finding in noticed(result)}


def set_config(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


def index(*shards: str) -> Callable[[Path], object]:
    content = json.dumps({"weight_map": dict(enumerate(shards))})
    return lambda folder: (folder / "model.safetensors.index.json").write_text(content)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def config(**entries: Any) -> Callable[[Path], object]:
    return lambda folder: set_config(folder, **entries)


ERRORS: list[tuple[str, Callable[[Path], object]]] = [
    ("PH-A01", remove("model.safetensors")),
    ("PH-A03", write("modeling_evil.py", b"import os")),
    ("PH-A03", write("libevil.SO", b"")),
    ("PH-A04", config(auto_map={"AutoModel": "x.Y"})),
    ("PH-A04", config(custom_pipelines={"image-classification": {"impl": "x.Y"}})),
    ("PH-A04", config(nested=[{"deep": {"trust_remote_code": True}}])),
    ("PH-A05", config(_attn_implementation="evil/kernel")),
    ("PH-A05", config(attn_implementation={"": "evil/kernel@main:f"})),
    ("PH-A05", config(attn_implementation="org/repo")),
    ("PH-A05", config(vision_config={"experts_implementation": ["evil/kernel"]})),
    ("PH-A05", config(kernel_config={"kernel_mapping": {"Linear": "org/repo:Layer"}})),
    ("PH-A05", config(_attn_implementation="flash_attention_2")),
    ("PH-A06", index("../../other.safetensors")),
    ("PH-A06", index("/etc/passwd.safetensors")),
    ("PH-A06", index("C:\\other.safetensors")),
    ("PH-A06", index("pytorch_model.bin")),
    ("PH-A06", index("model-00001-of-00002.safetensors")),
    ("PH-A06", write("model.safetensors.index.json", b"[]")),
    ("PH-A08", remove("config.json")),
    ("PH-A08", write("config.json", b"{not json")),
    ("PH-A08", write("config.json", b"[1, 2]")),
    ("PH-A08", write("preprocessor_config.json", b"\xff\xfe")),
    ("PH-A11", write("adapter_config.json", b"{}")),
    ("PH-A11", config(transformers_weights="other.safetensors")),
    ("PH-A11", config(pretrained_cfg={"hf_hub_filename": "other.safetensors"})),
    ("PH-A11", config(pretrained_cfg={"hf_hub_id": "other/model"})),
    ("PH-A11", config(pretrained_cfg={"custom_load": "hf"})),
    ("PH-A11", config(pretrained_cfg={"url": "https://example.org/other.pth"})),
    ("PH-A11", config(pretrained_cfg={"file": "/etc/passwd"})),
    ("PH-A17", config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})),
    ("PH-A17", config(vision_config={"fusion_config": {"patch_embeddings": True}})),
    ("PH-A18", config(id2label={"0": "cat", "1": "dog", "7": "owl", "9": "fox"})),
    ("PH-A18", config(id2label={"1": "cat", "2": "dog", "3": "owl", "4": "fox"})),
    ("PH-A18", config(id2label={"zero": "cat"})),
    ("PH-A22", config(pretrained_cfg={"act_layer": "relu"})),
    ("PH-A22", config(pretrained_cfg={"label_offset": 1})),
    ("PH-A36", config(problem_type="multi_label_classification")),
    ("PH-A36", config(problem_type="regression")),
    ("PH-A36", config(problem_type=["regression"])),
]


def test_a_checkpoint_in_order(tiny_checkpoint: Path) -> None:
    result = audit(pull(str(tiny_checkpoint)))
    assert ids(result) == set()
    result.require()


@pytest.mark.parametrize(("expected", "spoil"), ERRORS)
def test_errors_forbid_loading(model: Path, expected: str, spoil: Callable[[Path], object]) -> None:
    spoil(model)
    result = audit(pull(str(model)))
    assert expected in {error.id for error in result.errors}
    assert "PH-A99" not in ids(result)
    with pytest.raises(AuditError, match=expected) as caught:
        result.require()
    assert caught.value.advice


def test_missing_class_names_are_a_warning(model: Path) -> None:
    set_config(model, id2label=None)
    result = audit(pull(str(model)))
    assert {found.severity for found in result.findings if found.id == "PH-A09"} == {"warning"}
    assert {error.id for error in result.errors} == {"PH-A30"}  # the class has two classes where nobody says how many


def test_a_repository_with_a_class_of_its_own(model: Path) -> None:
    """Whoever trusts remote code runs it; we neither run it nor load the weights beside it."""
    (model / "modeling_x.py").write_text("raise SystemExit('ran')")
    set_config(model, auto_map={"AutoModelForImageClassification": "modeling_x.Evil"})
    seen = {(error.id, error.file) for error in audit(pull(str(model))).errors}
    assert seen == {("PH-A03", "modeling_x.py"), ("PH-A04", "config.json")}


def test_harmless_values_pass(model: Path) -> None:
    set_config(model, _attn_implementation="sdpa", kernel_size=[3, 3], trust_remote_code=False, auto_map=None)
    set_config(model, quantization_config=None, attn_implementation={"vision_config": "eager"})
    set_config(model, pretrained_cfg={"custom_load": False, "hf_hub_id": None, "mean": [0.5, 0.5, 0.5]})
    snapshot = pull(str(model))
    assert [found for check in auditing.CHECKS for found in check(snapshot)] == []


@pytest.mark.parametrize("kind", [None, "single_label_classification"])
def test_a_head_that_chooses_one_class(model: Path, kind: str | None) -> None:
    set_config(model, problem_type=kind)
    assert not noticed(audit(pull(str(model))))


def test_a_head_of_many_labels_is_refused_in_one_line(phard: Phard, model: Path) -> None:
    set_config(model, problem_type="multi_label_classification")
    done = phard("measure", model, "--images", "nowhere")
    assert done.code == 2
    assert "PH-A36" in done.complaint
    assert "problem_type = multi_label_classification" in done.complaint


def test_names_and_numbers_that_contradict_each_other(model: Path) -> None:
    set_config(model, label2id={"cat": 1, "dog": 0, "owl": 2, "fox": 3})
    (finding,) = noticed(audit(pull(str(model))))
    assert (finding.id, finding.severity) == ("PH-A18", "warning")
    assert "'cat' the number 0, label2id 1; 2 such" in finding.evidence


def test_a_name_that_two_classes_have_contradicts_nothing(model: Path) -> None:
    set_config(model, id2label=dict(enumerate(("crane", "dog", "owl", "crane"))))
    set_config(model, label2id={"crane": "3", "dog": "1", "owl": "2"})
    assert ids(audit(pull(str(model)))) == set()


@pytest.mark.parametrize("name", ["onnx/model.onnx", "model.TFLITE", "trt/model.engine"])
def test_compiled_graphs_are_a_warning(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).touch()
    (finding,) = noticed(audit(pull(str(model))))
    assert (finding.id, finding.severity, finding.file) == ("PH-A16", "warning", name)


def test_the_fields_that_timm_knows_are_the_ones_that_pass(model: Path) -> None:
    timm = pytest.importorskip("timm.models", reason="NO TIMM: install phard-hub[timm]")
    from phard_hub.auditing.config import _PRETRAINED_CFG

    assert {field.name for field in dataclasses.fields(timm.PretrainedCfg)} == _PRETRAINED_CFG


def test_a_link_out_of_the_folder(model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    (model / "model.safetensors").rename(outside)
    (model / "model.safetensors").symlink_to(outside)
    assert {error.id for error in audit(pull(str(model))).errors} == {"PH-A01", "PH-A07"}


@pytest.mark.parametrize(("name", "found"), [("models--org--name", set()), ("model", {"PH-A01", "PH-A07", "PH-A08"})])
def test_links_into_the_hubs_cache_begin_in_it(name: str, found: set[str], model: Path, tmp_path: Path) -> None:
    cache = tmp_path / name
    blobs, folder = cache / "blobs", cache / "snapshots" / "abc"
    shutil.copytree(model, blobs)
    folder.mkdir(parents=True)
    for file in blobs.iterdir():
        (folder / file.name).symlink_to(Path("../../blobs") / file.name)
    assert {error.id for error in audit(pull(str(folder))).errors} == found


def test_the_hubs_scanners(model: Path) -> None:
    snapshot = replace(pull(str(model)), flagged=("old.bin (suspicious)",))
    assert audit(snapshot).errors == ()
    assert ids(audit(snapshot)) == {"PH-A10"}
    assert audit(replace(snapshot, flagged=("model.safetensors (unsafe)",))).errors


def test_a_check_that_crashes_has_not_passed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(snapshot: Snapshot) -> Any:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(auditing, "CHECKS", (crash,))
    (finding,) = audit(pull(str(model))).errors
    assert finding.id == "PH-A99"
    assert "boom" in finding.evidence


def test_deep_json_is_no_way_around(model: Path) -> None:
    (model / "config.json").write_bytes(b"[" * 100_000 + b"]" * 100_000)
    assert {error.id for error in audit(pull(str(model))).errors} == {"PH-A08"}


def test_a_config_far_too_large_is_not_read(model: Path) -> None:
    with (model / "config.json").open("ab") as file:
        file.truncate(10 * 2**30)
    assert {error.id for error in audit(pull(str(model))).errors} == {"PH-A08", "PH-A33"}


def test_many_errors_are_told_in_a_few_words(model: Path) -> None:
    for number in range(100):
        (model / f"code{number:03}.py").touch()
    with pytest.raises(AuditError) as caught:
        audit(pull(str(model))).require()
    assert "code002.py" in str(caught.value)
    assert "and 97 more, see `phard audit`" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_evidence_is_one_short_line(model: Path) -> None:
    set_config(model, auto_map={"x": "y\n" * 1000})
    (finding,) = audit(pull(str(model))).errors
    assert "\n" not in finding.evidence
    assert len(finding.evidence) <= 200


def test_the_hub_is_down_and_the_cache_is_what_there_is(model: Path, hub: Hub) -> None:
    hub.create("org/model", model)
    assert ids(audit(pull("org/model"))) == set()
    with hub.down():
        (finding,) = noticed(audit(pull("org/model")))
    assert (finding.id, finding.severity) == ("PH-A31", "note")
    assert "the files are those of the cache" in finding.evidence


def test_a_card_too_large_to_download(model: Path, hub: Hub) -> None:
    hub.create("org/model", model)
    hub.commit("org/model", {"README.md": "x" * 2**21})
    (finding,) = noticed(audit(pull("org/model")))
    assert (finding.id, finding.severity, finding.file) == ("PH-A32", "note", "README.md")


def test_the_hubs_scanners_over_the_wire(model: Path, hub: Hub) -> None:
    hub.create("org/model", model)
    hub.commit("org/model", {"training_args.bin": b"pickle"})
    hub.flag("org/model", "training_args.bin", "unsafe")
    assert ids(audit(pull("org/model"))) == {"PH-A02", "PH-A10"}
