"""Everything that an attacker may change about a model without a trace in the names and shapes of its weights."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from phard_hub.auditing import Audit, audit
from phard_hub.errors import AuditError
from phard_hub.hub.pull import pull
from phard_hub.models.loading import load
from tests.auditing.checkpoints import Tamper, config, model_args, save_timm, save_vit, tensors, without, write_card
from tests.hub_server import Hub


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder in each library's format; do not change them."""
    folders = {"transformers": save_vit(tmp_path_factory.mktemp("vit"))}
    if importlib.util.find_spec("timm"):
        folders["timm"] = save_timm(tmp_path_factory.mktemp("timm"))
    return folders


@pytest.fixture
def model(originals: dict[str, Path], library: str, tmp_path: Path, hub: Hub) -> Path:
    """A copy of a model of the library, whose card names the original on the Hub."""
    if library not in originals:
        pytest.skip("NO TIMM: install phard-hub[timm]")
    hub.create("org/base", originals[library])
    folder = shutil.copytree(originals[library], tmp_path / "model")
    write_card(folder, "base_model: org/base")
    return folder


def full(folder: Path) -> Audit:
    return audit(pull(str(folder)))


def another_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    copies = {name.replace("layers.1.", "layers.2."): tensor.clone() for name, tensor in weights.items()}
    copies |= {name.replace("layer.1.", "layer.2."): tensor.clone() for name, tensor in weights.items()}
    assert len(copies) > len(weights)
    save_file({**copies, **weights}, folder / "model.safetensors", metadata={"format": "pt"})
    config(num_hidden_layers=3)(folder)


TAMPERED: list[tuple[str, str, str, Tamper]] = [
    ("transformers", "another activation", "PH-A20", config(hidden_act="silu")),
    ("transformers", "another norm", "PH-A21", config(layer_norm_eps=0.5)),
    ("transformers", "another layer", "PH-A21", another_layer),
    ("transformers", "another kind of model", "PH-A21", config(model_type="deit")),
    ("transformers", "a kernel from the Hub", "PH-A05", config(attn_implementation="org/repo")),
    ("transformers", "code", "PH-A04", config(auto_map={"AutoModelForImageClassification": "modeling.Evil"})),
    ("transformers", "other weights", "PH-A11", config(transformers_weights="other.safetensors")),
    ("transformers", "a tensor too many", "PH-A28", tensors(extra=torch.zeros(3))),
    ("transformers", "a tensor too few", "PH-A29", without("classifier.bias")),
    ("transformers", "a tensor of another shape", "PH-A30", tensors(**{"classifier.bias": torch.zeros(7)})),
    ("timm", "another activation", "PH-A22", model_args(act_layer="silu")),
    ("timm", "another activation in another place", "PH-A22", config(pretrained_cfg={"act_layer": "silu"})),
    ("timm", "another architecture", "PH-A21", config(architecture="test_efficientnet")),
    ("timm", "a weights file elsewhere", "PH-A11", config(pretrained_cfg={"hf_hub_filename": "other.safetensors"})),
    ("timm", "weights of another model", "PH-A11", config(pretrained_cfg={"hf_hub_id": "other/model"})),
    ("timm", "a classifier made anew", "PH-A22", model_args(num_classes=5)),
    ("timm", "a tensor too many", "PH-A28", tensors(extra=torch.zeros(3))),
    ("timm", "a tensor too few", "PH-A29", without("fc.bias")),
    ("timm", "a tensor of another shape", "PH-A30", tensors(**{"fc.bias": torch.zeros(7)})),
]


@pytest.mark.parametrize(
    ("library", "expected", "tamper"),
    [(library, expected, tamper) for library, _, expected, tamper in TAMPERED],
    ids=[f"{library}: {name}" for library, name, _, _ in TAMPERED],
)
def test_tampered_models_are_refused(model: Path, expected: str, tamper: Tamper) -> None:
    tamper(model)
    result = full(model)
    assert expected in {error.id for error in result.errors}
    with pytest.raises(AuditError, match=expected):
        load(result)


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_a_copy_as_it_was_has_no_findings(model: Path) -> None:
    result = full(model)
    assert result.findings == ()
    result.require()


ORDER = ("dog", "cat", "owl", "fox")


@pytest.mark.parametrize(
    ("library", "tamper"),
    [
        ("transformers", config(id2label=dict(enumerate(ORDER)), label2id=None)),
        ("timm", config(label_names=ORDER)),
    ],
)
def test_classes_in_another_order_are_a_warning(model: Path, tamper: Tamper) -> None:
    tamper(model)
    result = full(model)
    assert [(finding.id, finding.severity) for finding in result.findings] == [("PH-A23", "warning")]
    result.require()
