"""What is not pushed, who may not push, and cards that are left alone; the Hub stays as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phard_hub.errors import (
    CheckpointError,
    InputError,
    NotEvaluatedError,
    OutputError,
    PhardError,
    RefusedError,
    RepoError,
    ReportError,
)
from phard_hub.release.push import check_access, plan, push, send
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, Report
from tests.hub_server import Hub
from tests.release.releases import STRICT, make_release
from tests.report_factory import change_state, make_report

pytestmark = pytest.mark.usefixtures("impatient")


# What is not pushed


def test_the_gate_refuses(hub: Hub, release: Path) -> None:
    hub.login()
    before = hub.state()
    with pytest.raises(RefusedError, match=r"Nothing was pushed to me/model\. REJECT\. The policy refuses") as caught:
        push(release, "me/model", policy=STRICT)
    assert caught.value.exit_code == 1
    assert hub.state() == before
    assert {request.method for request in hub.log} <= {"GET", "HEAD"}


def test_what_was_not_evaluated_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    after = change_state(make_report().before, robust_accuracy=None)
    release = make_release(tmp_path / "release", after=after)
    hub.login()
    with pytest.raises(NotEvaluatedError, match="could not be evaluated") as caught:
        push(
            release, "me/model", policy=Policy(max_accuracy_loss=None, min_distance_increase=None, max_attack_success=1)
        )
    assert caught.value.exit_code == 3
    assert hub.state() == {}


def test_a_reason_is_printed_in_the_card(hub: Hub, release: Path) -> None:
    hub.login()
    push(release, "me/model", policy=STRICT, no_gate="to compare it with others")
    card = hub.files("me/model")["README.md"].decode()
    assert "**Published without asking the gate.** The reason given: to compare it with others" in card
    assert "The policy refuses" in card
    with pytest.raises(InputError, match="no reason"):
        push(release, "me/model", policy=STRICT, no_gate=" ")


def other_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"x")


def other_config(folder: Path) -> None:
    report = Report.read(folder)
    hashed = report.source.model_copy(update={"files": {"config.json": "0" * 64}})
    (folder / REPORT_NAME).write_text(report.model_copy(update={"source": hashed}).to_json())


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_report(folder: Path) -> None:
    (folder / REPORT_NAME).unlink()


@pytest.mark.parametrize(
    ("damage", "error", "expected"),
    [
        (other_weights, ReportError, "The report is about weights"),
        (other_config, CheckpointError, r"config\.json has changed"),
        (no_weights, ReportError, r"has no model\.safetensors"),
        (no_report, ReportError, "Cannot read the report"),
    ],
)
def test_a_damaged_release_does_not_reach_the_hub(
    damage: Callable[[Path], None], error: type[PhardError], expected: str, hub: Hub, release: Path, tmp_path: Path
) -> None:
    hub.login()
    folder = shutil.copytree(release, tmp_path / "release")
    damage(folder)
    with pytest.raises(error, match=expected):
        push(folder, "me/model", no_gate="whatever it is")
    assert hub.log == []


def test_weights_that_change_after_the_check_are_not_sent(hub: Hub, release: Path, tmp_path: Path) -> None:
    hub.login()
    folder = shutil.copytree(release, tmp_path / "release")
    planned = plan(folder, "me/model")
    other_weights(folder)
    with pytest.raises(ReportError, match="changed while it was pushed"):
        send(planned)
    assert hub.state() == {}


# Who may


def nobody(hub: Hub) -> None: ...


def reader(hub: Hub) -> None:
    hub.login("read")


def stranger(hub: Hub) -> None:
    hub.login(user="you")


@pytest.mark.parametrize(
    ("who", "repo", "options", "error", "expected"),
    [
        (nobody, "me/private", {}, OutputError, "You are not logged in to the Hub. Log in with `hf auth login`"),
        (reader, "me/public", {}, OutputError, "Your token may only read"),
        (reader, "me/public", {"pr": True}, OutputError, "Your token may only read"),
        (stranger, "me/public", {}, OutputError, "You may not write to me/public. Give --pr"),
        (stranger, "me/private", {}, RepoError, "me is neither you nor one of your groups"),
        (stranger, "me/private", {"pr": True}, RepoError, "There is no model me/private on the Hub"),
        (stranger, "nowhere/new", {}, RepoError, "may not make nowhere/new"),
        (stranger, "new", {}, RepoError, "'new' is no id of a model"),
        (stranger, "a/b/c", {}, RepoError, "'a/b/c' is no id of a model"),
        (stranger, "you/a--b", {}, RepoError, "'you/a--b' is no id of a model"),
        (stranger, "you/new", {"pr": True}, RepoError, "leave out --pr to make it"),
    ],
)
def test_who_may_not_push_is_told_so_and_changes_nothing(
    who: Callable[[Hub], None],
    repo: str,
    options: dict[str, Any],
    error: type[PhardError],
    expected: str,
    hub: Hub,
    release: Path,
) -> None:
    hub.create("me/public", {"README.md": "text"})
    hub.create("me/private", {"README.md": "text"}, private=True)
    who(hub)
    before = hub.state()
    for call in (lambda: push(release, repo, **options), lambda: check_access(repo, **options)):
        with pytest.raises(error) as caught:
            call()
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
    assert hub.state() == before


def test_an_unknown_token(hub: Hub, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_forged")
    with pytest.raises(OutputError, match="The Hub does not know your token"):
        push(release, "me/model")


# Cards that cannot be merged


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (b"x" * 2_000_000, "it has 2 MB"),
        (b"\xff\xfe\x00caf\xe9", "can't decode byte"),
        (b"---\ndatasets: 5\n---\ntext", "Invalid metadata in README.md"),
    ],
)
def test_a_card_that_cannot_be_merged_is_left_alone(card: bytes, expected: str, hub: Hub, release: Path) -> None:
    hub.login()
    hub.create("me/model", {"README.md": card})
    before = hub.state()
    with pytest.raises(OutputError, match=expected):
        push(release, "me/model")
    assert hub.state() == before


def test_a_licence_that_the_hub_does_not_know(hub: Hub, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release", base_card="---\nlicense: my-own\n---\ntext")
    hub.login()
    with pytest.raises(OutputError, match=r"not 'my-own'\. Correct it and push again"):
        push(release, "me/model")
    assert hub.asked("create")
    assert hub.state() == {}
