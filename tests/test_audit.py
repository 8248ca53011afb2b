"""Each thing that the audit must see, in a copy of a checkpoint that is otherwise in order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phard_hub.errors import AuditError
from phard_hub.hub import audit as audit_module
from phard_hub.hub.audit import Audit, audit
from phard_hub.hub.pull import Snapshot, pull


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def ids(result: Audit) -> set[str]:
    return {finding.id for finding in result.findings}


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
    ("PH-A04", config(auto_map={"AutoModel": "x.Y"})),
    ("PH-A04", config(custom_pipelines={"image-classification": {"impl": "x.Y"}})),
    ("PH-A04", config(nested=[{"deep": {"trust_remote_code": True}}])),
    ("PH-A05", config(_attn_implementation="evil/kernel")),
    ("PH-A05", config(attn_implementation={"": "evil/kernel@main:f"})),
    ("PH-A05", config(vision_config={"experts_implementation": ["evil/kernel"]})),
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
]


def test_a_checkpoint_in_order(tiny_checkpoint: Path) -> None:
    result = audit(pull(str(tiny_checkpoint)))
    assert result.findings == ()
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


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sub/optimizer.PT", "tf_model.h5"])
def test_pickles_beside_are_a_warning_and_stay_closed(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    result = audit(pull(str(model)))
    assert ids(result) == {"PH-A02"}
    result.require()


def test_missing_class_names_are_a_warning(model: Path) -> None:
    set_config(model, id2label=None)
    assert ids(audit(pull(str(model)))) == {"PH-A09"}


def test_harmless_values_pass(model: Path) -> None:
    set_config(model, _attn_implementation="sdpa", kernel_size=[3, 3], trust_remote_code=False, auto_map=None)
    assert audit(pull(str(model))).findings == ()


def test_a_link_out_of_the_folder(model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    (model / "model.safetensors").rename(outside)
    (model / "model.safetensors").symlink_to(outside)
    assert {error.id for error in audit(pull(str(model))).errors} == {"PH-A07"}


def test_links_inside_the_hub_cache_are_fine(model: Path, tmp_path: Path) -> None:
    blobs, folder = tmp_path / "repo" / "blobs", tmp_path / "repo" / "snapshots" / "abc"
    shutil.copytree(model, blobs)
    folder.mkdir(parents=True)
    for file in blobs.iterdir():
        (folder / file.name).symlink_to(Path("../../blobs") / file.name)
    assert audit(pull(str(folder))).findings == ()


def test_the_hubs_scanners(model: Path) -> None:
    snapshot = replace(pull(str(model)), flagged=("old.bin (suspicious)",))
    assert audit(snapshot).errors == ()
    assert ids(audit(snapshot)) == {"PH-A10"}
    assert audit(replace(snapshot, flagged=("model.safetensors (unsafe)",))).errors


def test_a_check_that_crashes_has_not_passed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(snapshot: Snapshot) -> Any:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(audit_module, "CHECKS", (crash,))
    (finding,) = audit(pull(str(model))).errors
    assert finding.id == "PH-A99"
    assert "boom" in finding.evidence


def test_deep_json_is_no_way_around(model: Path) -> None:
    (model / "config.json").write_bytes(b"[" * 100_000 + b"]" * 100_000)
    assert audit(pull(str(model))).errors


def test_evidence_is_one_short_line(model: Path) -> None:
    set_config(model, auto_map={"x": "y\n" * 1000})
    (finding,) = audit(pull(str(model))).errors
    assert "\n" not in finding.evidence
    assert len(finding.evidence) <= 200
