"""Pulling: local folders here; a Hub is simulated by replacing the three functions that reach it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phard_hub.errors import HubUnavailableError, OutputError, RepoError
from phard_hub.hub.pull import pull
from tests.hub_server import Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_folder_is_hashed(tiny_checkpoint: Path) -> None:
    snapshot = pull(str(tiny_checkpoint))
    assert snapshot.commit is None
    assert set(snapshot.files) == {"config.json", "preprocessor_config.json", "model.safetensors"}
    weights = (tiny_checkpoint / "model.safetensors").read_bytes()
    assert snapshot.files["model.safetensors"] == hashlib.sha256(weights).hexdigest()


def test_the_listing_holds_files_that_are_not_needed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    (folder / "sub").mkdir()
    (folder / "sub" / "x.py").touch()
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()
    snapshot = pull(str(folder))
    assert "sub/x.py" in snapshot.listing
    assert "sub/x.py" not in snapshot.files
    assert not any(".git" in name for name in snapshot.listing)


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("---\nlicense: mit\n---\n# Hello\n", "mit"),
        ("# No metadata\n", None),
        ("---\nlicense: [unclosed\n---\n", None),
        ("---\n- a list\n---\n", None),
    ],
)
def test_the_license_is_read(tmp_path: Path, readme: str, expected: str | None) -> None:
    (tmp_path / "README.md").write_text(readme)
    assert pull(str(tmp_path)).license == expected


@pytest.mark.parametrize("repo", ["/no/such/folder", "../nowhere", "a/b/c", "with space", "http://x/y"])
def test_neither_folder_nor_id(repo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepoError, match="neither an existing folder nor a Hub id"):
        pull(repo)


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(RepoError, match="has no revision"):
        pull(str(tmp_path), revision="main")


def test_the_hub_is_down_and_nothing_cached(hub: Hub) -> None:
    with hub.down(), pytest.raises(HubUnavailableError) as caught:
        pull("someone/something")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def hub_error(name: str) -> Exception:
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    response = httpx.Response(404, request=httpx.Request("GET", "http://127.0.0.1:9/x"))
    error: Exception = getattr(errors, name)("no", response=response)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("GatedRepoError", "is gated"),
        ("RepositoryNotFoundError", "no folder and no model"),
        ("RevisionNotFoundError", "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses(error: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise hub_error(error)

    monkeypatch.setattr("huggingface_hub.resolve_revision", refuse)
    with pytest.raises(RepoError, match=expected):
        pull("someone/something", revision="v9")


def simulate_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, names: list[str]) -> dict[str, Any]:
    asked: dict[str, Any] = {}

    def download(repo: str, **arguments: Any) -> str:
        asked.update(arguments)
        return str(folder)

    siblings = [SimpleNamespace(rfilename=name) for name in names]
    status = {"scansDone": True, "filesWithIssues": [{"path": "old.bin", "level": "unsafe"}]}
    info = SimpleNamespace(siblings=siblings, security_repo_status=status)
    monkeypatch.setattr("huggingface_hub.resolve_revision", lambda *_, **__: SimpleNamespace(resolved=COMMIT))
    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_only_what_is_needed_comes_from_the_hub_and_pinned(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["model.safetensors", "config.json", "old.bin", "x.py", "onnx/model.safetensors"]
    asked = simulate_hub(monkeypatch, tiny_checkpoint, names)
    snapshot = pull("someone/something", revision="main")
    assert asked["revision"] == snapshot.commit == COMMIT
    assert asked["allow_patterns"] == ["model.safetensors", "config.json"]
    assert snapshot.listing == tuple(names)
    assert snapshot.flagged == ("old.bin (unsafe)",)


def test_without_safetensors_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = simulate_hub(monkeypatch, tmp_path, ["config.json", "pytorch_model.bin", "onnx/model.safetensors"])
    with pytest.raises(RepoError, match=r"no \*\.safetensors"):
        pull("someone/something")
    assert not asked


def test_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_hub(monkeypatch, tmp_path, ["model.safetensors"])

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        pull("someone/something")
