"""Pushing to a Hub on loopback: whole or not at all, once, and never over somebody else's work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData

from phard_hub.errors import (
    CheckpointError,
    ConflictError,
    HubUnavailableError,
    InputError,
    NotEvaluatedError,
    OutputError,
    PhardError,
    RefusedError,
    RepoError,
    ReportError,
)
from phard_hub.hub import refusals
from phard_hub.hub.card import END, START
from phard_hub.hub.push import Pushed, check_access, plan, push, send
from phard_hub.hub.release import weights_sha256, write_release
from phard_hub.report.gate import gate
from phard_hub.report.plots import GalleryRow
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, Report, Source
from tests.command import Phard
from tests.hub_server import Hub
from tests.report_factory import RELEASE_FILES, change_state, make_report

CONFIG, PROCESSOR = b'{"model_type":  "resnet"}\r\n', b'{"size": 32 }'
STRICT = Policy(min_accuracy=0.99)
BASE_CARD = """---
license: other
license_name: terms
license_link: LICENSE
language: no
---

# The base

Made of \\1 and $5.
"""
OWN_CARD = f"---\r\nwidget:\n- src: cat.png\ntags:\n- mine\n---\n\n# Mine \r\n\n{START}\nold\n{END}\nMore,\tno end"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further tries come at once."""
    monkeypatch.setattr(refusals, "WAITS", (0.0, 0.01, 0.01))


def make_release(
    folder: Path, *, seed: int = 0, gallery: bool = True, base_card: str = BASE_CARD, **changes: Any
) -> Path:
    """A release of an invented model from org/base."""
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir()
    for name, content in (("config.json", CONFIG), ("preprocessor_config.json", PROCESSOR)):
        (source / name).write_bytes(content)
    (source / "README.md").write_text(base_card)
    weights = {"a": torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))}
    origin = Source(repo="org/base", commit="0123456789abcdef" * 2 + "01234567", license="other")
    report = make_report(**{"source": origin, **changes})
    assert report.after is not None
    after = report.after.model_copy(update={"weights_sha256": weights_sha256(weights)})
    image = torch.full((8, 8, 3), 0.5).numpy()
    report = report.model_copy(update={"after": after})
    return write_release(
        folder,
        report=report,
        verdict=gate(report, Policy()),
        weights=weights,
        source_folder=source,
        gallery=[GalleryRow("cat -> dog", image, image + 0.02)] if gallery else (),
    )


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that passes the gate; do not change it."""
    return make_release(tmp_path_factory.mktemp("releases") / "hardened")


@pytest.fixture(scope="module")
def other_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights, and no picture of triggers."""
    return make_release(tmp_path_factory.mktemp("releases") / "hardened", seed=1, gallery=False)


def commits(hub: Hub, repo: str = "me/model") -> int:
    return len(HfApi().list_repo_commits(repo))


def without_card(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path not in ("README.md", ".gitattributes")}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What arrives


def test_a_new_repository_gets_the_release_as_one_commit(hub: Hub, release: Path) -> None:
    hub.login()
    pushed = push(release, "me/model")
    assert pushed == Pushed(f"{hub.endpoint}/me/model", hub.head("me/model"), sent=True)
    files = hub.files("me/model")
    assert files.keys() - {".gitattributes"} == RELEASE_FILES
    assert without_card(files) == without_card(on_disk(release))
    assert (files["config.json"], files["preprocessor_config.json"]) == (CONFIG, PROCESSOR)
    assert commits(hub) == 2  # the Hub makes the first one, with .gitattributes
    assert len(hub.asked("commit")) == 1
    assert not hub.state()["models/me/model"]["private"]
    assert hub.asked("upload")
    assert hub.leaks() == []


def test_the_card_validates_and_its_numbers_come_back(hub: Hub, release: Path) -> None:
    hub.login()
    push(release, "me/model")
    card = ModelCard.load("me/model")
    card.validate()
    data = card.data
    assert isinstance(data, ModelCardData)
    assert (data.base_model, data["base_model_relation"], data.library_name) == ("org/base", "finetune", "transformers")
    assert (data.license, data.license_name, data["language"]) == ("other", "terms", "no")
    assert {"phard", "backdoor-hardened"} <= set(data.tags or [])
    metrics = {result.metric_name: result.metric_value for result in data.eval_results or []}
    assert (metrics["Accuracy"], metrics["Attack success (blend)"]) == (0.915, 0.0)
    assert metrics["Robust accuracy (PGD-20, Linf 2/255)"] == 0.41
    assert 'model="me/model"' in card.text
    assert "Made of \\1 and $5." in card.text
    assert all(f"({path})" in card.text for path in RELEASE_FILES if path.startswith("plots/"))


def test_what_is_made_is_private_on_demand(hub: Hub, release: Path) -> None:
    hub.login(orgs=["team"])
    push(release, "team/model", private=True)
    assert hub.state()["models/team/model"]["private"]
    assert not push(release, "team/model", private=True).sent
    hub.create("me/public")
    with pytest.raises(OutputError, match="is public already"):
        push(release, "me/public", private=True)


def test_nothing_else_of_the_folder_is_sent(hub: Hub, release: Path, tmp_path: Path) -> None:
    hub.login()
    folder = shutil.copytree(release, tmp_path / "release")
    for name in (".env", "notes.txt", "optimizer.bin", "plots/private.png"):
        (folder / name).write_text("secret")
    push(folder, "me/model")
    assert hub.files("me/model").keys() - {".gitattributes"} == RELEASE_FILES


def test_what_others_wrote_stays(hub: Hub, release: Path) -> None:
    hub.login()
    hub.create("me/model", {"README.md": OWN_CARD, "notes.txt": "mine", "config.json": "{}"})
    push(release, "me/model")
    files = hub.files("me/model")
    card = files["README.md"].decode()
    assert files["notes.txt"] == b"mine"
    assert files["config.json"] == CONFIG
    assert card.split(START)[0].endswith("---\n\n# Mine \r\n\n")
    assert card.endswith(f"{END}\nMore,\tno end")
    assert card.count(START) == 1
    data = ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]
    assert (data["widget"], data["tags"][0], data["license"]) == ([{"src": "cat.png"}], "mine", "other")


def test_a_second_push_changes_nothing(hub: Hub, release: Path) -> None:
    hub.login()
    first, before = push(release, "me/model"), hub.state()
    hub.log.clear()
    second = push(release, "me/model")
    assert (second.commit, second.sent) == (first.commit, False)
    assert hub.state() == before
    assert {request.method for request in hub.log} <= {"GET", "HEAD"}


def test_the_next_release_replaces_the_last_one_and_its_plots(hub: Hub, release: Path, other_release: Path) -> None:
    hub.login()
    push(release, "me/model")
    hub.commit("me/model", {"notes.txt": "mine"})
    push(other_release, "me/model")
    files = hub.files("me/model")
    assert files.pop("notes.txt") == b"mine"
    assert without_card(files) == without_card(on_disk(other_release))
    assert b"triggers.png" not in files["README.md"]
    assert commits(hub) == 4


# Pull requests


def test_a_pull_request_leaves_main_alone_and_comes_once(hub: Hub, release: Path) -> None:
    hub.create("org/base", {"README.md": BASE_CARD, "config.json": CONFIG, "model.safetensors": b"old"})
    main = hub.head("org/base")
    hub.login()
    first = push(release, "org/base", pr=True)
    assert first.url == f"{hub.endpoint}/org/base/discussions/1"
    assert hub.head("org/base") == main
    proposed = hub.files("org/base", "refs/pr/1")
    assert without_card(proposed) == without_card(on_disk(release))
    assert ModelCard(proposed["README.md"].decode()).data.get("base_model") is None  # not derived from itself
    assert "The policy passes" in hub.discussions("org/base")[0].events[0]["data"]["latest"]["raw"]
    before = hub.state()
    second = push(release, "org/base", pr=True)
    assert (second.url, second.commit, second.sent) == (first.url, first.commit, False)
    assert hub.state() == before


def test_an_open_pull_request_of_the_release_is_renewed(hub: Hub, release: Path) -> None:
    hub.create("org/base", {"model.safetensors": b"old"})
    hub.login()
    push(release, "org/base", pr=True)
    before = hub.head("org/base", "refs/pr/1")
    push(release, "org/base", pr=True, policy=STRICT, no_gate="only to look at")
    assert len(hub.discussions("org/base")) == 1
    assert hub.head("org/base", "refs/pr/1") != before
    assert b"only to look at" in hub.files("org/base", "refs/pr/1")["README.md"]


def test_a_merged_pull_request_needs_no_other_and_a_closed_one_does(hub: Hub, release: Path) -> None:
    hub.login("write", user="owner", orgs=["org"])
    hub.create("org/base", {"README.md": BASE_CARD})
    hub.create("org/other", {"README.md": BASE_CARD})
    api = HfApi()
    for repo in ("org/base", "org/other"):
        assert push(release, repo, pr=True).sent
    api.merge_pull_request("org/base", 1)
    assert not push(release, "org/base", pr=True).sent
    api.change_discussion_status("org/other", 1, "closed")
    assert push(release, "org/other", pr=True).url.endswith("/discussions/2")


def test_other_releases_and_other_people_have_pull_requests_of_their_own(
    hub: Hub, release: Path, other_release: Path
) -> None:
    hub.create("org/base", {"README.md": BASE_CARD})
    hub.login()
    urls = [push(release, "org/base", pr=True).url, push(other_release, "org/base", pr=True).url]
    hub.login(user="you")
    urls.append(push(release, "org/base", pr=True).url)
    assert [url[-1] for url in urls] == ["1", "2", "3"]


# What is not pushed


def test_the_gate_refuses(hub: Hub, release: Path) -> None:
    hub.login()
    before = hub.state()
    with pytest.raises(RefusedError, match=r"Nothing was pushed to me/model\. The policy refuses") as caught:
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
        (stranger, "you/a--b", {}, OutputError, "The Hub does not take you/a--b"),
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
    release = make_release(tmp_path / "release", base_card="---\nlicense: my own\n---\ntext")
    hub.login()
    with pytest.raises(OutputError, match=r"not 'my own'\. Correct it and push again"):
        push(release, "me/model")
    assert hub.asked("create")
    assert hub.state() == {}


# Trouble


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


# The command


def test_a_dry_run_shows_everything_and_sends_nothing(hub: Hub, release: Path, phard: Phard) -> None:
    hub.login()
    old: dict[str, bytes | str] = {
        "plots/training.png": b"\0old",
        "pytorch_model.bin": b"\0old",
        "model.safetensors.index.json": "{}",
    }
    hub.create("me/model", {"README.md": OWN_CARD, "config.json": CONFIG, **old})
    before = hub.state()
    done = phard("push", release, "me/model", "--dry-run")
    assert (done.code, done.err) == (0, "")
    shown = {line.split()[-1]: line.split()[0] for line in done.out.splitlines() if " MB  " in line}
    assert shown.keys() == RELEASE_FILES
    assert (shown["config.json"], shown["README.md"], shown["model.safetensors"]) == ("unchanged", "changed", "new")
    assert "+- phard" in done.out
    assert "-old" in done.out
    assert "stays, with weights that are not hardened: pytorch_model.bin" in done.out
    assert "Mine" not in done.out.split("@@", 1)[1].replace(" # Mine", "")
    assert hub.state() == before
    assert {request.method for request in hub.log} <= {"GET", "HEAD"}
    assert phard("push", release, "me/elsewhere", "--dry-run").code == 0
    assert hub.state() == before


def test_the_command_pushes_and_answers_by_its_exit_code(hub: Hub, release: Path, tmp_path: Path, phard: Phard) -> None:
    hub.login()
    policy = tmp_path / "policy.toml"
    policy.write_text("min_accuracy = 0.99\n")
    refused = phard("push", release, "me/model", "--policy", policy)
    assert refused.code == 1
    assert "Nothing was pushed" in refused.complaint
    assert phard("push", release, "me/model", "--policy", policy, "--dry-run").code == 1
    assert hub.state() == {}
    done = phard("push", release, "me/model", "--policy", policy, "--no-gate", "a try", "--private")
    assert (done.code, done.err) == (0, "")
    assert f"Pushed: {hub.endpoint}/me/model at {hub.head('me/model')[:12]}" in done.out
    assert hub.state()["models/me/model"]["private"]
    again = phard("push", release, "me/model", "--policy", policy, "--no-gate", "a try")
    assert "it is there already" in again.out
    hub.logout()
    assert phard("push", release, "me/model").code == 2
    with hub.down():
        hub.login()
        assert phard("push", release, "me/model").code == 3


def test_the_card_of_a_release_and_of_a_report(release: Path, phard: Phard) -> None:
    done = phard("card", release, "--name", "me/model")
    assert (done.code, done.err) == (0, "")
    assert 'model="me/model"' in done.out
    assert "# The base" in done.out
    assert "(plots/triggers.png)" in done.out
    alone = phard("card", release / REPORT_NAME)
    assert (alone.code, alone.err) == (0, "")
    assert isinstance(ModelCard(alone.out).data, ModelCardData)
    assert "# base-hardened" in alone.out
    assert "plots/" not in alone.out
    assert json.loads((release / REPORT_NAME).read_text())
    assert phard("card", release / "config.json").code == 2
