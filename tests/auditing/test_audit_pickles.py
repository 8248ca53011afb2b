"""Pickles beside the weights: never loaded, and looked into by picklescan where it is installed."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phard_hub.auditing import audit
from phard_hub.hub.pull import pull
from phard_hub.report.record import Finding
from tests.hub_server import Hub

MARK = "unpickled"


class Evil:
    """Leaves a folder where whoever unpickles it is at work."""

    def __reduce__(self) -> Any:
        return os.mkdir, (MARK,)


def evil_pickle() -> bytes:
    return pickle.dumps(Evil())


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def found_in(model: Path) -> Finding:
    (finding,) = [finding for finding in audit(pull(str(model))).findings if finding.id != "PH-A27"]
    return finding


needs_picklescan = pytest.mark.usefixtures("picklescan")


@pytest.fixture
def picklescan() -> None:
    pytest.importorskip("picklescan", reason="NO PICKLESCAN: install phard-hub[scan]")


def torch_zip(path: Path) -> None:
    torch.save({"weight": Evil()}, path)


def old_torch(path: Path) -> None:
    torch.save({"weight": Evil()}, path, _use_new_zipfile_serialization=False)


def plain(path: Path) -> None:
    path.write_bytes(evil_pickle())


def numpy_objects(path: Path) -> None:
    np.save(path.open("wb"), np.array([Evil()], dtype=object), allow_pickle=True)


def numpy_archive(path: Path) -> None:
    np.savez(path.open("wb"), x=np.array([Evil()], dtype=object), allow_pickle=True)


def second_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"fine": 1}) + evil_pickle())


@needs_picklescan
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("pytorch_model.bin", torch_zip),
        ("model.pth", old_torch),
        ("optimizer.PT", torch_zip),
        ("sub/rng_state.pkl", plain),
        ("head.joblib", plain),
        ("x.npy", numpy_objects),
        ("x.npz", numpy_archive),
        ("two.pkl", second_pickle),
    ],
)
def test_what_runs_commands_is_an_error(model: Path, name: str, write: Callable[[Path], None]) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    write(model / name)
    finding = found_in(model)
    assert (finding.id, finding.severity, finding.file) == ("PH-A12", "error", name)
    assert "posix.mkdir" in finding.evidence


@needs_picklescan
def test_a_pickle_of_tensors_is_a_warning(model: Path) -> None:
    torch.save(OrderedDict(weight=torch.zeros(3)), model / "pytorch_model.bin")
    finding = found_in(model)
    assert (finding.id, finding.severity) == ("PH-A02", "warning")
    assert "picklescan sees no dangerous import in it" in finding.evidence


@needs_picklescan
def test_what_picklescan_does_not_know_is_named(model: Path) -> None:
    (model / "labels.pkl").write_bytes(pickle.dumps(Path("x")))
    finding = found_in(model)
    assert finding.id == "PH-A02"
    assert "imports pathlib" in finding.evidence
    assert "does not know" in finding.evidence


@needs_picklescan
def test_picklescan_writes_nothing(
    model: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    plain(model / "x.pkl")
    found_in(model)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("picklescan").disabled


@needs_picklescan
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"7z\xbc\xaf\x27\x1c", b"\x80\x04\x95"])
def test_broken_ones_stop_nothing(model: Path, content: bytes) -> None:
    (model / "x.pt").write_bytes(content)
    assert found_in(model).id == "PH-A02"


@needs_picklescan
def test_a_zip_with_a_broken_member(model: Path) -> None:
    with zipfile.ZipFile(model / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", evil_pickle())
        archive.writestr("archive/other.pkl", b"\x80\x04garbage")
    assert found_in(model).id == "PH-A12"


def test_without_picklescan_the_finding_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "picklescan"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "picklescan", None)
    plain(model / "x.pkl")
    finding = found_in(model)
    assert (finding.id, finding.severity) == ("PH-A02", "warning")
    assert "not looked into, because picklescan is not installed" in finding.evidence
    assert "phard-hub[scan]" in finding.advice


@pytest.mark.parametrize("name", ["tf_model.h5", "model.keras"])
def test_keras_files_are_not_looked_into(model: Path, name: str) -> None:
    (model / name).write_bytes(b"\x89HDF")
    assert "not looked into, because it is no pickle" in found_in(model).evidence


def test_a_link_out_of_the_folder_is_not_followed(model: Path, tmp_path: Path) -> None:
    plain(tmp_path / "elsewhere.pkl")
    (model / "x.pkl").symlink_to(tmp_path / "elsewhere.pkl")
    assert "not at hand" in found_in(model).evidence


def test_on_the_hub_it_is_not_downloaded(model: Path, hub: Hub) -> None:
    plain(model / "x.pkl")
    hub.create("org/model", model)
    finding, _ = audit(pull("org/model")).findings
    assert (finding.id, finding.file) == ("PH-A02", "x.pkl")
    assert "not at hand" in finding.evidence
    assert not any(request.path.endswith("x.pkl") for request in hub.log)


def test_nothing_is_unpickled(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain(model / "x.pkl")
    torch_zip(model / "x.pt")
    audit(pull(str(model)))
    assert not (tmp_path / MARK).exists()
    pickle.loads((model / "x.pkl").read_bytes())
    assert (tmp_path / MARK).exists()  # so it would be seen
