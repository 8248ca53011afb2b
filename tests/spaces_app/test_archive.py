"""Zips of strangers: what leads elsewhere, grows, or is no plain file is refused, and nothing is written outside."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from phard_hub.errors import InputError
from spaces_app import archive
from spaces_app.archive import unpack

Fill = Callable[[zipfile.ZipFile], None]


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def zipped(path: Path, fill: Fill) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        fill(made)
    return path


@pytest.mark.parametrize("top", ["", "model/"])
def test_a_folder_comes_out(tmp_path: Path, top: str) -> None:
    def fill(made: zipfile.ZipFile) -> None:
        made.writestr(f"{top}config.json", "{}")
        made.writestr(f"{top}sub/a.txt", "a")
        made.writestr("__MACOSX/config.json", "x")

    unpack(zipped(tmp_path / "a.zip", fill), tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()) == [
        "config.json",
        "sub/a.txt",
    ]


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil", "a//b", "a\nb", "x" * 300]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        unpack(zipped(tmp_path / "a.zip", lambda made: made.writestr(entry(name), "x")), tmp_path / "out")
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "a.zip"}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: int) -> None:
    path = zipped(tmp_path / "a.zip", lambda made: made.writestr(entry("model", kind | 0o777), "/etc/passwd"))
    with pytest.raises(InputError, match="no regular file"):
        unpack(path, tmp_path / "out")


def test_a_bomb_is_stopped_while_it_grows(tmp_path: Path) -> None:
    def fill(made: zipfile.ZipFile) -> None:
        for number in range(4):
            made.writestr(f"{number}.safetensors", bytes(2**20))

    with pytest.raises(InputError, match="too large"):
        unpack(zipped(tmp_path / "a.zip", fill), tmp_path / "out", largest=2**21)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 2**21


def test_a_size_that_lies_is_not_believed(tmp_path: Path) -> None:
    """The size in the directory of the zip says one byte; what comes out is a megabyte."""
    path = zipped(tmp_path / "a.zip", lambda made: made.writestr("a", bytes(2**20)))
    content = path.read_bytes()
    path.write_bytes(content.replace((2**20).to_bytes(4, "little"), (1).to_bytes(4, "little")))
    with pytest.raises(InputError):
        unpack(path, tmp_path / "out", largest=2**10)


def test_other_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(made: zipfile.ZipFile) -> None:
        made.writestr("a", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("a", "2")

    def two(made: zipfile.ZipFile) -> None:
        made.writestr("a", "")
        made.writestr("b", "")

    def refused(path: Path, said: str) -> None:
        with pytest.raises(InputError, match=said):
            unpack(path, tmp_path / "out")

    refused(zipped(tmp_path / "a.zip", twice), "two files of one name")
    refused(zipped(tmp_path / "b.zip", lambda _: None), "holds no files")
    (tmp_path / "c.zip").write_bytes(b"PK\x03\x04 no zip")
    refused(tmp_path / "c.zip", "cannot be read")
    monkeypatch.setattr(archive, "MOST_FILES", 1)
    refused(zipped(tmp_path / "d.zip", two), "at most 1")
    encrypted = zipped(tmp_path / "e.zip", lambda made: made.writestr("a", "x"))
    content = bytearray(encrypted.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    encrypted.write_bytes(content)
    refused(encrypted, "encrypted")
