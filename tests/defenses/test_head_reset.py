"""`phard harden --reset-head`, and a model that no training moves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from phard_hub.defenses.removal.headreset import probe
from phard_hub.report.record import Report
from tests.auditing.checkpoints import tensors
from tests.command import Phard
from tests.jobs import cheap, refusing, write_images


def test_the_head_is_another_before_anything_is_hardened(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    out = tmp_path / "out"
    done = phard(*cheap(tiny_checkpoint, images, out, "--policy", refusing(tmp_path)), "--reset-head")
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


@pytest.mark.parametrize("choosing", [("--classes", "cat,owl"), ("--only-present-classes",)])
def test_among_some_classes_the_others_are_no_answers_any_more(
    choosing: tuple[str, ...], tiny_checkpoint: Path, tmp_path: Path, phard: Phard
) -> None:
    out, shown = tmp_path / "out", write_images(tmp_path / "images")
    if choosing[0] == "--only-present-classes":
        for other in ("dog", "fox"):
            shutil.rmtree(shown / other)
    done = phard(*cheap(tiny_checkpoint, shown, out), "--reset-head", *choosing)
    assert done.code in (0, 1, 3), done.err
    report = Report.read(out)
    assert report.before.distances.chosen == (0, 2)
    assert report.hardening is not None
    assert "2 classes without images are no answers any more" in report.hardening.events


def test_the_head_of_some_classes_is_the_regression_of_these() -> None:
    """The logits of the two that are left differ as those of a regression on two classes do."""
    features = torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = (features[:, 0] > 0.3).long()
    two, four = torch.nn.Linear(5, 2), torch.nn.Linear(5, 4)
    probe(two, features, labels, 1e-2)
    probe(four, features, torch.tensor([1, 3])[labels], 1e-2, (1, 3))
    logits = four(features.float())
    assert torch.equal(logits.argmax(1), torch.tensor([1, 3])[two(features.float()).argmax(1)])
    assert torch.allclose(logits[:, [1, 3]], two(features.float()), atol=1e-5)
    assert (logits[:, [0, 2]] < -1000).all()
