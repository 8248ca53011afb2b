"""Pushing to a Hub on loopback: one commit or pull request, once, and what others wrote stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, ModelCardData

from phard_hub.errors import OutputError
from phard_hub.release.foreign import END, START
from phard_hub.release.push import Pushed, push
from phard_hub.report.record import REPORT_NAME
from tests.command import Phard
from tests.hub_server import Hub
from tests.release.releases import BASE_CARD, CONFIG, OWN_CARD, PROCESSOR, STRICT, commits, on_disk, without_card
from tests.report_factory import RELEASE_FILES

pytestmark = pytest.mark.usefixtures("impatient")


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
    assert card.split(START)[0].endswith("---\n\n")
    assert card.endswith(f"{END}\n\n# Mine \n\nMore,\tno end")
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
    assert done.out.count("-# Mine") == done.out.count("+# Mine") == 1  # it moves below our part, and stays
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
