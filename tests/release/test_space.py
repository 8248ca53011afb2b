"""The page as a Space on the loopback Hub: one commit, once, and what others added stays."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from phard_hub.errors import ConflictError, OutputError, RepoError
from phard_hub.release.push import Pushed
from phard_hub.release.space import push_space, space_files
from tests.command import Phard
from tests.hub_server import Hub

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("impatient")


def head(hub: Hub) -> str:
    return hub.head("me/page", kind="spaces")


def test_a_new_space_gets_all_of_it_as_one_commit(hub: Hub, phard: Phard) -> None:
    hub.login()
    done = phard("demo", "--push", "me/page")
    assert done.code == 0, done.err
    assert f"{hub.endpoint}/spaces/me/page at {head(hub)[:12]}" in done.out
    files = hub.files("me/page", kind="spaces")
    assert {path: files[path] for path in files.keys() - {".gitattributes"}} == space_files()
    assert len(hub.asked("commit")) == 1
    assert hub.leaks() == []


def test_the_card_of_a_release_links_to_its_report(hub: Hub, phard: Phard, release: Path) -> None:
    hub.login()
    assert phard("push", release, "me/model", "--space", "me/page").code == 0
    card = hub.files("me/model")["README.md"].decode()
    assert "(https://huggingface.co/spaces/me/page?report=me/model)" in card
    assert "is no id of a Space" in phard("push", release, "me/model", "--space", "a b").complaint


def test_a_space_is_updated_and_nothing_is_sent_twice(hub: Hub) -> None:
    hub.login()
    push_space("me/page")
    hub.commit("me/page", {"spaces_app/old.py": "gone", "own.txt": "kept"}, kind="spaces")
    second, third = push_space("me/page"), push_space("me/page")
    assert second.sent
    assert third == Pushed(f"{hub.endpoint}/spaces/me/page", head(hub), sent=False)
    files = hub.files("me/page", kind="spaces")
    assert files["own.txt"] == b"kept"
    assert "spaces_app/old.py" not in files


def test_an_answer_that_got_lost_is_found_again(hub: Hub) -> None:
    hub.login()
    hub.fail("commit", drop_after=0, times=1)
    assert push_space("me/page").commit == head(hub)
    assert len(hub.asked("commit")) in (1, 2)


def test_nobody_else_is_written_over(hub: Hub) -> None:
    hub.login()
    hub.create("me/page", {"a.txt": "a"}, kind="spaces")
    hub.when("commit", lambda: hub.commit("me/page", {"b.txt": "b"}, kind="spaces"))
    with pytest.raises(ConflictError, match="has changed since it was looked at"):
        push_space("me/page")
    assert "app.py" not in hub.files("me/page", kind="spaces")


def test_what_fails_leaves_no_space(hub: Hub) -> None:
    hub.login()
    hub.fail("commit", status=403, times=None)
    before = hub.state()
    with pytest.raises(OutputError, match="refuses"):
        push_space("me/page")
    assert hub.state() == before


@pytest.mark.parametrize("repo", ["page", "other/page"])
def test_a_place_of_nobody_or_of_others_is_refused(hub: Hub, repo: str) -> None:
    hub.login()
    with pytest.raises(RepoError):
        push_space(repo)


def test_the_space_names_its_start_and_no_other_versions() -> None:
    """What is pinned is what the tests run with, but for what the requirements say of it."""
    files = space_files()
    header = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert header["app_file"] in files
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text().lower(), re.MULTILINE))
    pins = {name.replace("_", "-"): version for name, version in pins.items()}
    wanted = dict(re.findall(r"^([\w-]+)==(\S+)$", files["requirements.txt"].decode(), re.MULTILINE))
    assert wanted
    assert all(pins[name] == version for name, version in wanted.items())
    assert header["sdk_version"] == wanted["gradio"]
    assert 0 < len(header["short_description"]) <= 60  # the Hub's limit
    assert sum(map(len, files.values())) < 6 * 2**20


def test_the_space_has_what_the_library_needs() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"^([\w-]+)", space_files()["requirements.txt"].decode(), re.MULTILINE)
    assert {re.split(r"[^\w-]", each)[0] for each in project["dependencies"]} <= set(named)
