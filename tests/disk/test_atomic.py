"""Files and folders appear whole or not at all, and only in the place of what they may replace."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from phard_hub.disk import atomic as files
from phard_hub.disk.atomic import (
    check_folder,
    check_place,
    check_private,
    discard,
    new_folder,
    private_folder,
    restore,
    write_bytes,
    write_text,
)
from phard_hub.disk.reading import open_regular, read_regular
from phard_hub.errors import OutputError


def write_folder(path: Path, text: str = "new") -> None:
    with new_folder(path) as folder:
        (folder / "a").write_text(text)


def write_and_fail(path: Path) -> None:
    with new_folder(path) as folder:
        (folder / "a").write_text("new")
        raise KeyError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What is replaced, and what never is


def link(path: Path) -> None:
    path.with_name("elsewhere").mkdir()
    path.symlink_to(path.with_name("elsewhere"))


def link_to_a_file(path: Path) -> None:
    path.with_name("elsewhere").write_text("mine")
    path.symlink_to(path.with_name("elsewhere"))


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


PLACES: list[tuple[Callable[[Path], object], str | None, str | None]] = [
    (link, "is a link to .*elsewhere. Give the place", "is a link to .*elsewhere"),
    (link_to_a_file, "is a link to .*elsewhere", "is a link to .*elsewhere"),
    (link_to_nothing, "is a link to .*nothing", "is a link to .*nothing"),
    (os.mkfifo, "is no regular file. Give the name of a file", "is a file. Give the name of a folder"),
    (Path.mkdir, "is a folder. Give the name of a file", None),
    (lambda path: path.write_text("old"), None, "is a file. Give the name of a folder"),
    (lambda path: None, None, None),
]


@pytest.mark.parametrize(("make", "as_file", "as_folder"), PLACES)
def test_what_is_in_the_place(
    make: Callable[[Path], object], as_file: str | None, as_folder: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "it"
    make(path)
    before = names(tmp_path)
    calls: list[tuple[Callable[[], object], str | None]] = [
        (partial(check_place, path), as_file),
        (partial(write_text, path, "new"), as_file),
        (partial(check_folder, path), as_folder),
        (partial(write_folder, path), as_folder),
    ]
    for call, words in calls:
        if words is not None:
            with pytest.raises(OutputError, match=words):
                call()
            assert names(tmp_path) == before
    if (tmp_path / "elsewhere").is_file():
        assert (tmp_path / "elsewhere").read_text() == "mine"
    if as_file is None and not path.is_dir():
        write_text(path, "new")
        assert path.read_text() == "new"
    elif as_folder is None:
        write_folder(path)
        assert (path / "a").read_text() == "new"


def test_links_on_the_way_are_followed(tmp_path: Path) -> None:
    link(tmp_path / "disk")
    write_folder(tmp_path / "disk" / "out")
    write_text(tmp_path / "disk" / "file", "x")
    assert names(tmp_path / "elsewhere") == ["file", "out"]


def test_devices_are_not_replaced() -> None:
    before = Path("/dev/null").stat()
    with pytest.raises(OutputError, match="no regular file"):
        write_text(Path("/dev/null"), "x")
    assert os.path.samestat(before, Path("/dev/null").stat())


def test_permissions_are_those_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
        write_folder(tmp_path / "folder")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder")] == [0o640, 0o750]


# What goes wrong


@pytest.mark.parametrize("way", ["exchange", "two steps"])
def test_a_failure_leaves_the_old_version(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "two steps":
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    write_folder(tmp_path / "it", "old")
    with pytest.raises(KeyError):
        write_and_fail(tmp_path / "it")
    assert (tmp_path / "it" / "a").read_text() == "old"
    write_folder(tmp_path / "it")
    assert (tmp_path / "it" / "a").read_text() == "new"
    assert names(tmp_path) == ["it"]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("file/it", "Part of the path is a file"),
        ("x" * 250, "Choose a shorter name"),
        ("/proc/it", "Choose a folder that you may write to"),
    ],
)
@pytest.mark.parametrize("write", [write_folder, lambda path: write_text(path, "x"), private_folder])
def test_a_place_that_cannot_be_written(write: Callable[[Path], None], path: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    if write is private_folder and path.startswith("x"):
        return  # it needs no other name beside it
    with pytest.raises(OutputError, match="Cannot write") as caught:
        write(tmp_path / path)
    assert advice in caught.value.advice
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "write", [lambda path: write_bytes(path, b"x" * 5000), lambda path: write_folder(path, "x" * 5000)]
)
def test_a_full_disk(write: Callable[[Path], None], tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(OutputError, match="File too large"):
            write(tmp_path / "it")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


# What kills leave


LEFT = (".it.0123abcd.new", ".it.fedcba98.new")
OTHERS = (
    ".it.0123abcd.new.txt",
    ".it.0123abc.new",
    ".it.0123ABCD.new",
    ".that.0123abcd.new",
    "it.0123abcd.new",
    ".it.bak",
)


@pytest.mark.parametrize("write", [write_folder, lambda path: write_text(path, "x")])
def test_only_what_a_kill_left_is_removed(write: Callable[[Path], None], tmp_path: Path) -> None:
    for name in (*LEFT, *OTHERS):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("written")
    write(tmp_path / "it")
    assert set(names(tmp_path)) == {"it", *OTHERS}


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "it") as folder:
        (folder / "a").write_text("slow")
        write_folder(tmp_path / "it", "fast")
        assert folder.is_dir()
        assert (tmp_path / "it" / "a").read_text() == "fast"
    assert (tmp_path / "it" / "a").read_text() == "slow"
    assert names(tmp_path) == ["it"]


def test_links_under_these_names_stay_and_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("years")
    (tmp_path / LEFT[0]).symlink_to(tmp_path / "mine")
    write_folder(tmp_path / "it")
    assert names(tmp_path / "mine") == ["thesis"]


def test_a_former_folder_comes_back(tmp_path: Path) -> None:
    write_folder(tmp_path / ".it.0123abcd.old", "old")
    restore(tmp_path / "it")
    assert (tmp_path / "it" / "a").read_text() == "old"
    write_folder(tmp_path / ".it.0123abcd.old", "older")
    restore(tmp_path / "it")  # which is there
    assert (tmp_path / "it" / "a").read_text() == "old"
    write_folder(tmp_path / "it")
    assert names(tmp_path) == ["it"]


def test_a_disk_without_locks_keeps_what_may_be_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / LEFT[0]).mkdir()
    write_folder(tmp_path / "it")
    assert set(names(tmp_path)) == {"it", LEFT[0]}


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    write_folder(tmp_path / "it")
    discard(tmp_path / "it")
    discard(tmp_path / "it")
    assert names(tmp_path) == []


def test_what_was_being_discarded_goes_the_next_time(tmp_path: Path) -> None:
    (tmp_path / ".it.0f7913d1.new").mkdir()
    discard(tmp_path / "it")
    assert names(tmp_path) == []


# Folders for one user


def of_another_user(path: Path) -> None:
    path.mkdir(0o700)
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(path, 12345, -1)


def of_mode(mode: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        path.chmod(mode)

    return make


PRIVATE: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (link, "is a link, so"),
    "file": (lambda path: path.write_text("x"), "is no folder, so"),
    "another user": (of_another_user, "belongs to another user, so"),
    "group": (of_mode(0o770), r"can be written by others \(its mode is 770\)"),
    "others": (of_mode(0o702), r"can be written by others \(its mode is 702\)"),
    "sticky": (of_mode(0o1777), r"can be written by others \(its mode is 1777\)"),
}


@pytest.mark.parametrize("case", PRIVATE)
def test_a_folder_that_others_can_write_to_is_refused(case: str, tmp_path: Path) -> None:
    make, words = PRIVATE[case]
    make(tmp_path / "it")
    for check in (check_private, private_folder):
        with pytest.raises(OutputError, match=words) as caught:
            check(tmp_path / "it")
        assert "Remove it" in caught.value.advice


def test_a_private_folder(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_folder(tmp_path / "it")
    finally:
        os.umask(before)
    private_folder(tmp_path / "it")
    assert (tmp_path / "it").stat().st_mode & 0o777 == 0o700


# Regular files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "plots").mkdir(parents=True)
    (made / "plots" / "a.png").write_bytes(b"plot")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a.png").write_text("secret")
    (made / "link").symlink_to("../secret")
    (made / "links").symlink_to("../secrets")
    (made / "environ").symlink_to("/proc/self/environ")
    (made / "nothing").symlink_to("nowhere")
    os.mkfifo(made / "fifo")
    return made


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("link", "it is a link"),
        ("links/a.png", "it is a link"),
        ("environ", "it is a link"),
        ("nothing", "it is a link"),
        ("fifo", "it is no regular file"),
        ("plots", "it is no regular file"),
        ("missing", "No such file or directory"),
        ("link/a", "it is a link"),
        ("plots/a.png/b", "Not a directory"),
        ("../secret", "it is no name of a file in the folder"),
        ("plots/../../secret", "it is no name"),
        ("", "it is no name"),
        ("/etc/passwd", "it is no name"),
        ("plots//a.png", "it is no name"),
    ],
)
def test_what_is_no_regular_file_of_the_folder_is_not_read(name: str, words: str, folder: Path) -> None:
    with pytest.raises(OSError, match=words), open_regular(folder, name):
        pass
    with pytest.raises(OSError, match=words):
        read_regular(folder, name, 100)


def test_a_regular_file_is_read_up_to_its_largest_size(folder: Path) -> None:
    assert read_regular(folder, "plots/a.png", 4) == b"plot"
    with pytest.raises(OSError, match="it has more than"):
        read_regular(folder, "plots/a.png", 3)
    with pytest.raises(OSError, match="it has more than"):
        read_regular(Path("/proc/self"), "maps", 10)  # whose size nobody knows before
