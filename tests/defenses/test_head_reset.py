"""`phard harden --reset-head`, and a model that no training moves."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from phard_hub.report.record import Report
from tests.auditing.checkpoints import tensors
from tests.command import Phard
from tests.jobs import cheap


def test_the_head_is_another_before_anything_is_hardened(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    out = tmp_path / "out"
    done = phard(*cheap(tiny_checkpoint, images, out), "--reset-head")
    assert done.code in (0, 1), done.err
    hardening = Report.read(out).hardening
    assert hardening is not None
    assert hardening.phases[0].defense == "head-reset"
    assert len(hardening.phases) > 1
    assert hardening.forgotten
    said = "the head depends on the encoder and the images alone, not on the head that came with the model"
    assert said in hardening.events
    assert said in (out / "README.md").read_text()
    # With and without it are two jobs.
    refused = phard(*cheap(tiny_checkpoint, images, out))
    assert (refused.code, "holds a release of another job" in refused.err) == (2, True)


def test_a_model_that_training_cannot_move_is_refused(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    """Its features are zero on every image, so all that has a gradient are four numbers."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "dead")
    weights = load_file(folder / "model.safetensors")
    last = [name for name in weights if name.startswith("resnet.encoder.stages.1") and "normalization" in name]
    changed = {name: torch.zeros_like(weights[name]) for name in last if name.endswith("weight")}
    changed |= {name: torch.full_like(weights[name], -1) for name in last if name.endswith("bias")}
    tensors(**changed)(folder)
    measuring = ["measure", folder, "--images", images, "--preset", "cheapest", "--out", tmp_path / "out"]
    for command in (cheap(folder, images, tmp_path / "out"), measuring):
        done = phard(*command)
        assert done.code == 2
        assert "PH-A39" in done.err
        assert "nothing that trains can harden it" in done.err
        assert not (tmp_path / "out").exists()
