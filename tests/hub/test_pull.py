"""Pulling from local folders; `tests/hub/test_download.py` pulls from a Hub."""

from __future__ import annotations

import gc
import hashlib
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from phard_hub.errors import RepoError
from phard_hub.hub.pull import pull


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
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "model.bin").touch()
    snapshot = pull(str(folder))
    assert "sub/x.py" in snapshot.listing
    assert "sub/x.py" not in snapshot.files
    assert ".hidden/model.bin" in snapshot.listing


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


def test_a_readme_of_any_size_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n" + "- [a](b)\n" * 10**6)
    snapshot = pull(str(tmp_path))
    assert (snapshot.license, snapshot.left_out) == (None, ("README.md (9 MB)",))


def test_the_files_are_copies_that_only_this_user_may_see(tiny_checkpoint: Path) -> None:
    snapshot = pull(str(tiny_checkpoint))
    assert snapshot.folder != tiny_checkpoint
    assert stat.S_IMODE(snapshot.folder.stat().st_mode) == 0o700
    assert {path.name for path in snapshot.folder.iterdir()} == set(snapshot.files)


def test_copies_vanish_with_the_snapshot(tiny_checkpoint: Path) -> None:
    snapshot = pull(str(tiny_checkpoint))
    folder, other = snapshot.folder, replace(snapshot, repo="other")
    del snapshot
    gc.collect()
    assert folder.is_dir()
    del other
    gc.collect()
    assert not folder.exists()


def test_without_weights_none_are_hashed(tiny_checkpoint: Path) -> None:
    assert set(pull(str(tiny_checkpoint), weights=False).files) == {"config.json", "preprocessor_config.json"}
