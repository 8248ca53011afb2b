"""The tensors of a checkpoint against the library's own class."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from phard_hub.auditing import Audit, audit
from phard_hub.errors import AuditError
from phard_hub.hub.pull import pull
from phard_hub.models.loading import load
from tests.auditing.checkpoints import Tamper, config, model_args, noticed, save_timm, save_vit, tensors
from tests.hub_server import Hub


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny vision transformer; do not change it."""
    return save_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def model(vit: Path, tmp_path: Path) -> Path:
    return shutil.copytree(vit, tmp_path / "model")


def checked(folder: Path) -> Audit:
    return audit(pull(str(folder)))


def test_a_checkpoint_in_order(model: Path) -> None:
    assert noticed(model) == []


@pytest.mark.data
def test_real_checkpoints_in_order(shared_data: Path) -> None:
    folders = [folder for folder in (shared_data / "models").iterdir() if folder.is_dir()]
    assert folders
    for folder in folders:
        assert noticed(folder) == []


@pytest.mark.parametrize(
    ("expected", "evidence", "tamper"),
    [
        ("PH-A28", "the class has no extra", tensors(extra=torch.zeros(3))),
        ("PH-A28", "x0, x1, x2 and 7 more", tensors(**{f"x{number}": torch.zeros(1) for number in range(10)})),
        ("PH-A29", "layers.2.", config(num_hidden_layers=3)),
        ("PH-A28", "layers.1.", config(num_hidden_layers=1)),
        ("PH-A30", "classifier.bias of (7,), which is (4,)", tensors(**{"classifier.bias": torch.zeros(7)})),
        ("PH-A30", "(4, 1000000)", config(hidden_size=1_000_000)),
        ("PH-A19", "never_heard_of", config(model_type="never_heard_of")),
        ("PH-A19", "BertConfig", config(model_type="bert")),
        ("PH-A19", "for field 'hidden_size'", config(hidden_size="many")),
        ("PH-A19", "never_heard_of", config(hidden_act="never_heard_of")),
        ("PH-A19", "", config(num_attention_heads=0)),
    ],
)
def test_what_does_not_fit(model: Path, expected: str, evidence: str, tamper: Tamper) -> None:
    tamper(model)
    result = checked(model)
    (found,) = [error for error in result.errors if error.id == expected]
    assert evidence in found.evidence
    with pytest.raises(AuditError):
        load(result)


def test_weights_of_another_architecture(model: Path, tiny_checkpoint: Path) -> None:
    shutil.copy(tiny_checkpoint / "model.safetensors", model)
    assert {"PH-A28", "PH-A29"} == {error.id for error in checked(model).errors}


def test_nothing_is_built_where_the_audit_has_errors(model: Path, hub: Hub) -> None:
    config(attn_implementation="org/kernel")(model)
    assert [error.id for error in checked(model).errors] == ["PH-A05"]
    assert hub.log == []


def test_building_writes_nothing(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tensors(extra=torch.zeros(1))(model)
    assert checked(model).errors
    assert capfd.readouterr() == ("", "")


# timm


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose class has changed since older versions of timm saved it; do not change it."""
    pytest.importorskip("timm", reason="NO TIMM: install phard-hub[timm]")
    return save_timm(tmp_path_factory.mktemp("timm"), "efficientvit_m0")


@pytest.fixture
def timm_model(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "model")


def test_a_timm_checkpoint_in_order(timm_model: Path) -> None:
    assert noticed(timm_model) == []


def test_what_timm_converts_is_a_warning(timm_model: Path) -> None:
    tensors(**{"stages.0.blocks.0.mixer.m.attn.attention_bias_idxs": torch.zeros(4, 4)})(timm_model)
    (finding,) = noticed(timm_model)
    assert (finding.id, finding.severity) == ("PH-A28", "warning")
    assert "the library's own conversion accepts it" in finding.evidence


@pytest.mark.parametrize(
    ("evidence", "tamper"),
    [
        ("Unknown model", config(architecture="never_heard_of")),
        ("unexpected keyword", model_args(never_heard_of=1)),
    ],
)
def test_what_timm_cannot_build(timm_model: Path, evidence: str, tamper: Tamper) -> None:
    tamper(timm_model)
    (finding,) = checked(timm_model).errors
    assert finding.id == "PH-A19"
    assert evidence in finding.evidence


def test_timm_does_not_fall_back_to_a_pickle(timm_model: Path) -> None:
    weights = torch.load(save_as_pickle(timm_model), weights_only=True)
    assert weights
    result = checked(timm_model)
    (finding,) = result.errors
    assert finding.id == "PH-A19"
    assert "has no model.safetensors" in finding.evidence


def save_as_pickle(folder: Path) -> Path:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    return folder / "pytorch_model.bin"
