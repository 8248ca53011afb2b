"""The whole job by the command: complete, replaced as a whole, and continued after kills, Ctrl-C and a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

from phard_hub.__main__ import main
from phard_hub.report.record import Report
from phard_hub.training import loop
from phard_hub.triggers.search import measure
from tests.command import Phard
from tests.jobs import LABELS, cheap, files, write_images
from tests.ready import python
from tests.report_factory import RELEASE_FILES


@pytest.fixture(scope="module")
def released(tiny_checkpoint: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that was made without interruption."""
    out = tmp_path_factory.mktemp("released") / "hardened"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["phard", *map(str, cheap(tiny_checkpoint, images, out))])
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code in (0, 1, 3)
    (out.parent / "code").write_text(str(stop.value.code))
    return out


def test_the_release_is_complete(released: Path) -> None:
    assert files(released) == RELEASE_FILES
    assert {path.name for path in released.parent.iterdir()} == {"hardened", "code"}


def test_the_release_loads_as_any_model_from_the_hub(released: Path, images: Path) -> None:
    from transformers import pipeline

    classify = pipeline("image-classification", model=str(released), device="cpu")
    answers = classify(Image.open(images / "cat" / "0.png"))
    assert {answer["label"] for answer in answers} == set(LABELS)


def test_the_card_can_be_read(released: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(released / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.eval_results


def test_the_gate_agrees_with_the_run(released: Path, phard: Phard) -> None:
    done = phard("gate", released)
    assert str(done.code) == (released.parent / "code").read_text()
    report = Report.read(released)
    assert report.after is not None
    assert len(report.after.distances.pairs) == 12


def test_the_report_tells_no_paths(released: Path, tiny_checkpoint: Path) -> None:
    report = Report.read(released)
    assert (report.source.repo, report.dataset) == (tiny_checkpoint.name, "animals")
    assert str(tiny_checkpoint.parent) not in report.to_json()


def test_a_run_that_has_ended_is_not_done_again(
    released: Path, tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(released, tmp_path / "hardened")
    state = f".hardened.{(Report.read(out).job or '')[:12]}.run"
    (tmp_path / state).mkdir()  # killed after the release, before the state was removed, or while it was
    (tmp_path / f".{state}.0f7913d1.new").mkdir()
    with monkeypatch.context() as patch:
        patch.delattr("phard_hub.pipeline.load_data")
        done = phard(*cheap(tiny_checkpoint, images, out))
    assert [path.name for path in tmp_path.iterdir()] == ["hardened"]
    assert str(done.code) == (released.parent / "code").read_text()
    assert f"Release: {out} (it was there: nothing was done again)" in done.out
    assert "Policy, before hardening" in done.out


def test_a_damaged_release_is_made_again(
    released: Path, tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    out = shutil.copytree(released, tmp_path / "hardened")
    (out / "model.safetensors").write_bytes(b"damaged")
    done = phard(*cheap(tiny_checkpoint, images, out))
    assert str(done.code) == (released.parent / "code").read_text()
    assert f"Release: {out}" in done.out
    assert files(out) == RELEASE_FILES
    assert (out / "model.safetensors").read_bytes() == (released / "model.safetensors").read_bytes()


def test_another_job_does_not_replace_a_release_unasked(
    released: Path, tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    out = shutil.copytree(released, tmp_path / "hardened")
    done = phard(*cheap(tiny_checkpoint, images, out, "--seed", "1"))
    assert done.code == 2
    assert "holds a release of another job. Give another --out, or --overwrite to replace it" in done.complaint
    assert Report.read(out) == Report.read(released)
    assert phard(*cheap(tiny_checkpoint, images, out, "--seed", "1", "--overwrite")).code in (0, 1, 3)
    assert Report.read(out).job != Report.read(released).job


KILL = """
import os, signal, sys
from phard_hub.training import loop
from phard_hub.triggers.search import measure
save = loop._Run._save
def save_and_die(self):
    save(self)
    if self.step == 4 < self.schedule.steps:
        os.kill(os.getpid(), signal.SIGKILL)
loop._Run._save = save_and_die
from phard_hub.__main__ import main
main()
"""


def test_a_killed_run_continues_to_the_same_bytes(
    released: Path, tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = cheap(tiny_checkpoint, images, tmp_path / "hardened")
    assert python(KILL, *arguments).code == -signal.SIGKILL
    left = [path.name for path in tmp_path.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".hardened.")
    steps: list[int] = []
    update = loop._Run._update

    def noted(run: loop._Run) -> Any:
        steps.append(run.step)
        return update(run)

    monkeypatch.setattr(loop._Run, "_update", noted)
    with monkeypatch.context() as patch:  # what was measured before is kept, too
        patch.setattr("phard_hub.pipeline.measure", measured := Mock(wraps=measure))
        phard(*arguments)
    assert measured.call_count == 1
    assert steps == [4, 5, 6, 7]
    assert files(tmp_path / "hardened") == RELEASE_FILES
    assert [path.name for path in tmp_path.iterdir()] == ["hardened"]
    assert (tmp_path / "hardened" / "model.safetensors").read_bytes() == (released / "model.safetensors").read_bytes()


def test_ctrl_c_keeps_the_state_and_says_how_to_continue(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = loop._Run._update

    def interrupted(run: loop._Run) -> Any:
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return update(run)

    monkeypatch.setattr(loop._Run, "_update", interrupted)
    done = phard(*cheap(tiny_checkpoint, images, tmp_path / "hardened"))
    assert done.code == 3
    assert "Stopped at step 3 of 4." in done.complaint
    assert "run the same command to continue" in done.complaint
    assert not (tmp_path / "hardened").exists()
    assert [path.name.startswith(".hardened.") for path in tmp_path.iterdir()] == [True]


# The disk takes no more than 2000 bytes a file from a certain call on.
FULL = """
import resource
from phard_hub import pipeline
from phard_hub.training import loop
from phard_hub.triggers.search import measure
def limit(place, name):
    call = getattr(place, name)
    def limited(*arguments, **keywords):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        return call(*arguments, **keywords)
    setattr(place, name, limited)
limit({})
from phard_hub.__main__ import main
main()
"""


def test_a_full_disk_keeps_the_former_release(
    released: Path, tiny_checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(released, tmp_path / "hardened")
    before = {name: (out / name).read_bytes() for name in files(out)}
    done = python(
        FULL.format("pipeline, 'write_release'"), *cheap(tiny_checkpoint, images, out, "--overwrite", "--seed", "1")
    )
    assert done.code == 2
    assert "File too large" in done.complaint
    assert {name: (out / name).read_bytes() for name in files(out)} == before


def test_a_disk_too_full_for_checkpoints(tiny_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    done = python(FULL.format("loop._Run, '_save'"), *cheap(tiny_checkpoint, images, tmp_path / "hardened"))
    assert done.code == 2
    assert "cannot be written" in done.complaint.casefold() or "cannot write" in done.complaint.casefold()
    (left,) = tmp_path.iterdir()
    assert files(left) == {"measured/distances.json", "measured/bank.safetensors"}  # the next try goes on from here


def test_two_classes_are_enough(tmp_path: Path, phard: Phard, tiny_checkpoint: Path) -> None:
    from transformers import ResNetForImageClassification

    model = ResNetForImageClassification.from_pretrained(
        tiny_checkpoint,
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
        ignore_mismatched_sizes=True,
    )
    model.save_pretrained(tmp_path / "model")
    shutil.copy(tiny_checkpoint / "preprocessor_config.json", tmp_path / "model")
    images = write_images(tmp_path / "images", ("cat", "dog"))
    out = tmp_path / "out"
    assert phard(*cheap(tmp_path / "model", images, out)).code in (0, 1, 3)
    report = Report.read(out)
    assert [(pair.source, pair.target) for pair in report.before.distances.pairs] == [(0, 1), (1, 0)]


def test_measuring_writes_a_report_and_prints_a_table(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard
) -> None:
    path = tmp_path / "report.json"
    done = phard("measure", tiny_checkpoint, "--images", images, "--preset", "cheapest", "--out", path)
    assert done.code == 0
    assert "Accuracy" in done.out
    assert json.loads(path.read_text())["after"] is None
    assert phard("gate", path).code in (0, 1, 3)
