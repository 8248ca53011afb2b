"""Broken images: refused by name, or left out and counted with `--skip-broken`; and how few images are enough."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from phard_hub.errors import ImagesError, InputError
from phard_hub.hardware import computing
from phard_hub.images import load_images
from phard_hub.report.record import Report
from tests.command import Phard
from tests.jobs import LABELS, cheap, write_images
from tests.small import noise_images


def spoil(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.write_bytes(path.read_bytes()[:60] if "1" in name else b"<html>404</html>")
    return folder


def test_broken_images_are_left_out_where_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = spoil(write_images(tmp_path / "data", per_class=6), "cat/1.png", "fox/2.png", "owl/0.png")
    whole = load_images(str(folder), labels=LABELS, image_size=(8, 8), skip_broken=True)
    assert (len(whole), whole.skipped) == (21, 3)
    assert whole.labels.bincount().tolist() == [5, 6, 5, 5]
    assert whole.source.endswith("24 of 24 images; left out: 3 broken")
    assert "3 of 24 images" in caplog.text
    assert "cat/1.png" in caplog.text
    with pytest.raises(ImagesError, match=r"cat/1\.png"):
        load_images(str(folder), labels=LABELS, image_size=(8, 8))


def test_files_that_a_list_names_and_that_are_gone(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", per_class=3)
    lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (folder / "list.csv").write_text("\n".join(["path,label", *lines, "cat/gone.png,cat"]))
    assert load_images(str(folder / "list.csv"), labels=LABELS, image_size=(8, 8), skip_broken=True).skipped == 1


def test_a_class_of_broken_images_only_is_refused(tmp_path: Path) -> None:
    folder = spoil(write_images(tmp_path / "data", per_class=2), "cat/0.png", "cat/1.png")
    with pytest.raises(ImagesError, match="without its 2 broken images has no images of 1 of 4 classes: cat"):
        load_images(str(folder), labels=LABELS, image_size=(8, 8), skip_broken=True)


def test_the_report_counts_them(
    tiny_checkpoint: Path, images: Path, tmp_path: Path, phard: Phard, caplog: pytest.LogCaptureFixture
) -> None:
    folder = spoil(shutil.copytree(images, tmp_path / "data"), "cat/1.png", "dog/0.png")
    options = ["--skip-broken", "--preset", "cheapest", "--out", tmp_path / "report.json"]
    assert phard("measure", tiny_checkpoint, "--images", folder, *options).code == 0
    assert "2 of 96 images" in caplog.text
    assert Report.read(tmp_path / "report.json").skipped == 2
    card = phard("card", tmp_path / "report.json").out
    assert "2 of its images could not be decoded and were left out." in card


@pytest.mark.parametrize("per_class", [4, 18])
def test_counts_are_those_that_the_user_gave(
    per_class: int, tiny_checkpoint: Path, tmp_path: Path, phard: Phard
) -> None:
    data = write_images(tmp_path / "data", per_class=per_class)
    done = phard(*cheap(tiny_checkpoint, data, tmp_path / "out"))
    assert done.code == 2
    assert re.search(rf"data has {per_class} images of class \w+, of which [0-3] are left", done.complaint)
    assert "give 20 images of each class, or --test-images" in done.complaint


def test_twenty_images_of_a_class_are_enough(tiny_checkpoint: Path, tmp_path: Path, phard: Phard) -> None:
    data = write_images(tmp_path / "data", per_class=20)
    options = ["--preset", "cheapest", "--device", "cpu", "--batch-size", "3"]
    assert phard("measure", tiny_checkpoint, "--images", data, *options).code == 0


def test_a_device_that_is_not_there(tiny_checkpoint: Path, images: Path, phard: Phard) -> None:
    done = phard("measure", tiny_checkpoint, "--images", images, "--device", "cuda:99")
    assert done.code == 2
    assert "There is no device 'cuda:99' here. Use one of cpu" in done.complaint


def test_the_size_of_a_pass_is_that_which_was_asked_for() -> None:
    images = noise_images(10, 2, (3, 8, 8))
    with computing(at_once=7):
        assert [len(labels) for _, labels in images.batches()] == [7, 7, 6]
    assert [len(labels) for _, labels in images.batches()] == [20]


def test_one_device_is_not_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="cannot be chosen for several processes"), computing("cpu"):
        pass


def test_no_more_threads_than_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # as little as a container may leave
    try:
        torch.set_num_threads(2)
        with computing():
            assert torch.get_num_threads() == (2 if "OMP_NUM_THREADS" in os.environ else 1)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        with computing():
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
