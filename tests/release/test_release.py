"""The release folder: complete, exact, and whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from phard_hub.disk import atomic as files
from phard_hub.errors import CheckpointError, OutputError, ReportError
from phard_hub.models.tensors import serialize
from phard_hub.release.release import check_writable, weights_sha256, write_release
from phard_hub.report.gate import gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, Report, Source
from phard_hub.report.views.plots import GalleryRow
from tests.report_factory import NOTHING_DONE, RELEASE_FILES, make_report

CONFIG = b'{"model_type":  "resnet"}\r\n'
IMAGE = np.full((8, 8, 3), 0.5)
GALLERY = [GalleryRow("cat -> dog", IMAGE, IMAGE + 0.02)]
FILES = RELEASE_FILES | {"LICENSE"}


class Interrupted(Sequence[GalleryRow]):
    """A gallery that is cut off when it is drawn, after the weights were written."""

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> GalleryRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[GalleryRow]: ...
    def __getitem__(self, index: int | slice) -> Any:
        raise KeyboardInterrupt


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "preprocessor_config.json").write_bytes(b"{}")
    (folder / "LICENSE").write_bytes(b"Do what you like.")
    (folder / "README.md").write_text("---\nlanguage: en\n---\nOld text.\n")
    (folder / "model.safetensors").write_bytes(b"old weights")
    (folder / "model.safetensors.index.json").write_bytes(b"{}")
    (folder / "code.py").write_bytes(b"raise SystemExit")
    return folder


def make_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(4, 3, generator=generator), "b": torch.arange(5), "h": torch.ones(3).half()}


def report_of(weights: dict[str, torch.Tensor], **changes: Any) -> Report:
    report = make_report(**changes)
    assert report.after is not None
    return report.model_copy(
        update={"after": report.after.model_copy(update={"weights_sha256": weights_sha256(weights)})}
    )


def release(out: Path, source: Path, weights: dict[str, torch.Tensor] | None = None, **options: Any) -> Path:
    weights = weights or make_weights()
    report = options.pop("report", None) or report_of(weights)
    if not report.source.files:
        report = report.model_copy(update={"source": Source(repo="tiny", files=hashes(source))})
    options.setdefault("gallery", GALLERY)
    return write_release(
        out, report=report, verdict=gate(report, Policy()), weights=weights, source_folder=source, **options
    )


def hashes(source: Path) -> dict[str, str]:
    """As pulling it gives them."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir() if path.is_file()}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 2 kB: a disk that is full as far as a process can see."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_release_is_complete_and_exact(tmp_path: Path, source: Path) -> None:
    weights = make_weights()
    out = release(tmp_path / "deep" / "tiny-hardened", source, weights)
    made = content(out)
    assert set(made) == FILES
    assert made["config.json"] == CONFIG
    report = Report.read(out)
    assert report.after is not None
    assert hashlib.sha256(made["model.safetensors"]).hexdigest() == report.after.weights_sha256
    loaded = load_file(out / "model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    card = ModelCard.load(out / "README.md")
    assert "Old text." in card.text
    assert "# tiny-hardened" in card.text
    assert all(made[path].startswith(b"\x89PNG") for path in FILES if path.endswith(".png"))
    assert (out.stat().st_mode & 0o777) == (source.stat().st_mode & 0o777)


def test_only_plots_with_something_to_show(tmp_path: Path, source: Path) -> None:
    weights = make_weights()
    out = release(tmp_path / "out", source, weights, report=report_of(weights, hardening=NOTHING_DONE), gallery=())
    assert sorted(path.name for path in (out / "plots").iterdir()) == ["distances.png", "success.png"]
    assert "training.png" not in (out / "README.md").read_text()


def test_serialization_depends_on_values_alone() -> None:
    weights = make_weights()
    backwards = dict(reversed(weights.items()))
    strided = {**weights, "a": weights["a"].t().contiguous().t()}
    assert serialize(weights) == serialize(backwards) == serialize(strided)
    assert serialize(weights) != serialize(make_weights(1))
    assert json.loads(serialize(weights)[8:].split(b"}}")[0].split(b'"__metadata__":')[1].split(b"}")[0] + b"}") == {
        "format": "pt"
    }


def test_tied_weights_are_written_under_both_names(tmp_path: Path, source: Path) -> None:
    shared = torch.ones(6)
    out = release(tmp_path / "out", source, {"a": shared, "b": shared, "c": shared[:2]})
    assert set(load_file(out / "model.safetensors")) == {"a", "b", "c"}


def test_a_former_release_is_replaced_and_leaves_nothing(tmp_path: Path, source: Path) -> None:
    out = release(tmp_path / "out", source)
    (out / "stale.txt").write_text("old")
    release(out, source, make_weights(1))
    assert set(content(out)) == FILES
    assert load_file(out / "model.safetensors")["a"].equal(make_weights(1)["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_other_folders_are_refused(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for call in (lambda: release(out, source), lambda: check_writable(out)):
        with pytest.raises(OutputError, match="holds files that are no release"):
            call()
    assert content(out) == {"thesis.txt": b"years of work"}
    with pytest.raises(OutputError, match="is a file"):
        check_writable(out / "thesis.txt")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert set(content(release(empty, source))) == FILES


def test_interruption_keeps_the_former_release(tmp_path: Path, source: Path) -> None:
    out = release(tmp_path / "out", source)
    before = content(out)
    with pytest.raises(KeyboardInterrupt):
        release(out, source, make_weights(1), gallery=Interrupted())
    assert content(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_full_disk_keeps_the_former_release(tmp_path: Path, source: Path) -> None:
    big = {"a": torch.zeros(10_000)}
    # Only around the call: pytest's own output may be a file, too.
    with small_files(), pytest.raises(OutputError, match="File too large") as caught:
        release(tmp_path / "out", source, big)
    assert caught.value.advice
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("steps", [1, 2])
def test_failure_of_the_last_step_brings_the_former_release_back(
    steps: int, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = release(tmp_path / "out", source)
    before, rename = content(out), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".new" and not target.exists():
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    def no_exchange(*_: Path) -> bool:
        if steps == 1:
            raise PermissionError(13, "Permission denied")
        return False

    monkeypatch.setattr(Path, "rename", failing)
    monkeypatch.setattr(files, "_exchange", no_exchange)
    with pytest.raises(OutputError, match="Permission denied"):
        release(out, source, make_weights(1))
    assert content(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_kill_keeps_the_former_release(tmp_path: Path, source: Path) -> None:
    out = release(tmp_path / "out", source)
    before = content(out)
    code = (
        "import os, sys, signal\nfrom pathlib import Path\nimport phard_hub.release.release as r\n"
        "from tests.release.test_release import make_weights, release\n"
        "r._png = lambda figure: os.kill(os.getpid(), signal.SIGKILL)\n"
        "release(Path(sys.argv[1]), Path(sys.argv[2]), make_weights(1))"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(out), str(source)], env=environment, cwd=root, check=False)
    assert done.returncode == -9
    assert content(out) == before


def test_paths_that_cannot_be_written(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "out", tmp_path / ("x" * 300), Path("/proc/nothing/out")):
        for call in (lambda path: check_writable(path), lambda path: release(path, source)):
            with pytest.raises(OutputError) as caught:
                call(out)
            assert caught.value.advice


def test_check_writable_leaves_nothing_and_knows_the_space(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="MB are free"):
        check_writable(tmp_path / "a", needed=10**18)


def test_report_must_be_about_these_weights(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ReportError, match="Measure"):
        release(tmp_path / "out", source, report=report_of(make_weights(1)))
    assert not (tmp_path / "out").exists()


def test_source_must_be_as_it_was_pulled(tmp_path: Path, source: Path) -> None:
    weights = make_weights()
    hashed = {"config.json": hashlib.sha256(CONFIG).hexdigest()}
    report = report_of(weights, source=Source(repo="tiny", files=hashed))
    assert (release(tmp_path / "out", source, weights, report=report) / REPORT_NAME).is_file()
    (source / "config.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="has changed since it was pulled"):
        release(tmp_path / "out2", source, weights, report=report)
    (source / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"Cannot read .*config\.json: No such file"):
        release(tmp_path / "out2", source, weights, report=report)
    nothing = report.model_copy(update={"source": Source(repo="tiny", files={"LICENSE": "0" * 64})})
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        release(tmp_path / "out2", source, weights, report=nothing)
