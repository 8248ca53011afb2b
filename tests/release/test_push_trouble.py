"""Pushing while the Hub is in trouble: whole or not at all, once, and never over somebody else's work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from phard_hub.errors import ConflictError, HubUnavailableError, OutputError, PhardError
from phard_hub.release.push import plan, push, send
from tests.hub_server import Hub
from tests.release.releases import OWN_CARD, on_disk, without_card

pytestmark = pytest.mark.usefixtures("impatient")


Trouble = Callable[[Hub], object]


def busy(hub: Hub) -> object:
    return hub.fail("commit", times=2)


def answer_lost(hub: Hub) -> object:
    return hub.fail("commit", drop_after=0)


def answer_lost_and_then_blind(hub: Hub) -> object:
    return hub.fail("commit", drop_after=0), hub.fail("info", skip=2, times=2), hub.fail("discussions", skip=1, times=2)


def creation_lost(hub: Hub) -> object:
    return hub.fail("create", drop_after=0)


def upload_interrupted(hub: Hub) -> object:
    return hub.fail("upload", drop_after=0)


@pytest.mark.parametrize("trouble", [busy, answer_lost, answer_lost_and_then_blind, creation_lost, upload_interrupted])
@pytest.mark.parametrize("place", ["new", "there", "pull request"])
def test_short_trouble_is_survived_and_nothing_is_done_twice(
    trouble: Trouble, place: str, hub: Hub, release: Path
) -> None:
    hub.login()
    repo = "me/model" if place == "new" else hub.create("me/model", {"config.json": "{}"}) and "me/model"
    trouble(hub)
    pushed = push(release, repo, pr=place == "pull request")
    assert pushed.sent
    ref = "refs/pr/1" if place == "pull request" else "main"
    assert pushed.commit == hub.head(repo, ref)
    assert without_card(hub.files(repo, ref)) == without_card(on_disk(release))
    assert len(HfApi().list_repo_commits(repo, revision=ref)) == (2 if place == "new" else 3)
    assert len(hub.discussions(repo)) == (1 if place == "pull request" else 0)


def always_busy(hub: Hub) -> object:
    return hub.fail("commit", times=None)


def no_space(hub: Hub) -> object:
    hub.quota = 100
    return None


def payment(hub: Hub) -> object:
    return hub.fail("commit", status=402, message="Private storage limit reached", times=None)


def forbidden_upload(hub: Hub) -> object:
    return hub.fail("upload", status=403, message="Request has expired", times=None)


@pytest.mark.parametrize("place", ["new", "there", "pull request"])
@pytest.mark.parametrize(
    ("trouble", "error", "expected"),
    [
        (always_busy, HubUnavailableError, "did not take the push to me/model: .*503"),
        (no_space, OutputError, "Storage limit reached"),
        (payment, OutputError, "Private storage limit reached.* Free some space"),
        (forbidden_upload, OutputError, "Request has expired"),
    ],
)
def test_a_failed_push_leaves_the_hub_as_it_was(
    trouble: Trouble, error: type[PhardError], expected: str, place: str, hub: Hub, release: Path
) -> None:
    hub.login()
    if place != "new":
        hub.create("me/model", {"config.json": "{}"})
    before = hub.state()
    trouble(hub)
    with pytest.raises(error, match=expected) as caught:
        push(release, "me/model", pr=place == "pull request")
    assert "\n" not in str(caught.value)
    assert hub.state() == before


def test_a_stale_parent_is_reported_and_not_written_over(hub: Hub, release: Path) -> None:
    hub.login()
    hub.create("me/model", {"config.json": "{}"})
    hub.when("commit", lambda: hub.commit("me/model", {"config.json": "theirs"}))
    with pytest.raises(ConflictError, match=r"me/model has changed since it was looked at.* Push again") as caught:
        push(release, "me/model")
    assert caught.value.exit_code == 3
    assert without_card(hub.files("me/model")) == {"config.json": b"theirs"}
    assert push(release, "me/model").sent


def test_a_new_repository_that_somebody_filled_meanwhile_is_not_removed(hub: Hub, release: Path) -> None:
    hub.login()
    hub.when("commit", lambda: hub.commit("me/model", {"notes.txt": "theirs"}))
    with pytest.raises(ConflictError):
        push(release, "me/model")
    assert without_card(hub.files("me/model")) == {"notes.txt": b"theirs"}


def test_a_repository_that_somebody_made_meanwhile(hub: Hub, release: Path) -> None:
    hub.login()
    planned = plan(release, "me/model")
    hub.create("me/model", {"notes.txt": "theirs"})
    before = hub.state()
    with pytest.raises(ConflictError, match="made by somebody else"):
        send(planned)
    assert hub.state() == before


def test_what_cannot_be_removed_is_named(hub: Hub, release: Path) -> None:
    hub.login()
    hub.fail("commit", status=402, message="Pay", times=None)
    hub.fail("delete", status=403, message="No", times=None)
    with pytest.raises(HubUnavailableError, match="left the new, empty repository me/model behind"):
        push(release, "me/model")
    hub.faults.clear()
    assert push(release, "me/model").sent


def test_ctrl_c_removes_the_new_repository(hub: Hub, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    hub.login()
    monkeypatch.setattr(HfApi, "create_commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        push(release, "me/model")
    assert hub.asked("create")
    assert hub.state() == {}


@pytest.mark.parametrize("pr", [False, True])
def test_the_hub_is_down(pr: bool, hub: Hub, release: Path) -> None:
    hub.login()
    hub.create("me/model", {"README.md": OWN_CARD})
    before = hub.state()
    with hub.down(), pytest.raises(HubUnavailableError, match="did not take the push to me/model") as caught:
        push(release, "me/model", pr=pr)
    assert caught.value.exit_code == 3
    planned = plan(release, "me/model", pr=pr)
    with hub.down(), pytest.raises(HubUnavailableError):
        send(planned)
    assert hub.state() == before
