"""What goes to the Hub: no broken token, no secret, nothing half-planned, and no results of other weights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from phard_hub.errors import InputError
from phard_hub.hub.client import ready_client
from phard_hub.hub.pull import pull
from phard_hub.release.push import plan, push
from phard_hub.report.record import REPORT_NAME, Source
from tests.border.run import watched
from tests.command import Phard
from tests.hub_server import Hub
from tests.release.releases import CONFIG, OWN_CARD, make_release, without_card

pytestmark = pytest.mark.usefixtures("impatient", "brief_waits")
REPO = "org/model"
Files = dict[str, str | bytes]

# Tokens

TOKENS = ["hf_ä", "hf_\u202e", "hf_ x", "hf_\x1b", "hf_\x7f", "hf_\udcff"]


@pytest.mark.parametrize("token", TOKENS, ids=ascii)
@pytest.mark.parametrize("verb", ["push", "pull", "data"])
def test_a_broken_token_is_told_in_one_line(
    token: str,
    verb: str,
    hub: Hub,
    release: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    phard: Phard,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    arguments: dict[str, tuple[object, ...]] = {
        "push": ("push", release, "me/model"),
        "pull": ("audit", REPO),
        "data": ("measure", tiny_checkpoint, "--images", "org/data", "--out", release.parent / "measured"),
    }
    done = phard(*arguments[verb])
    assert done.code == 2
    assert "Your token for the Hub holds characters that no token has" in done.complaint
    assert token not in done.err
    assert hub.log == []


def test_a_line_end_after_a_token_does_no_harm(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO, files, private=True)
    monkeypatch.setenv("HF_TOKEN", f"{hub.token(user='org')}\r\n")
    assert pull(REPO).commit == hub.head(REPO)


def test_a_token_file_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match="no token has"):
        ready_client()


def test_the_command_alone_says_it_as_well(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_ä")
    done, _ = watched("audit", REPO)
    assert done.code == 2
    assert "no token has" in done.complaint


# One moment of trouble


def requests_of_a_plan(hub: Hub, release: Path, *, pr: bool) -> int:
    """Plan once without trouble; how many requests that takes."""
    hub.login()
    hub.create("me/model", {"README.md": OWN_CARD, "config.json": "{}"})
    push(release, "me/model", pr=True)
    hub.commit("me/model", {"README.md": OWN_CARD}, ref="refs/pr/1")
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    hub.log.clear()
    plan(release, "me/model", pr=pr)
    return len(hub.log)


@pytest.mark.parametrize("how", [{"status": 503}, {"status": 429}, {"drop_after": 0}], ids=str)
@pytest.mark.parametrize("pr", [False, True])
def test_each_request_of_a_plan_survives_one_fault(pr: bool, how: dict[str, Any], hub: Hub, release: Path) -> None:
    count = requests_of_a_plan(hub, release, pr=pr)
    assert count >= (7 if pr else 4)
    for index in range(count):
        shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
        fault = hub.fail("*", skip=index, **how)
        planned = plan(release, "me/model", pr=pr)
        assert (fault.times, planned.target.commit) == (0, hub.head("me/model", planned.target.revision))
        assert planned.card_before == OWN_CARD
        hub.faults.clear()


# What a push leaves, and what it tells


def test_results_of_other_weights_go_with_these(hub: Hub, release: Path, other_release: Path, phard: Phard) -> None:
    hub.login()
    results: Files = {".eval_results/imagenet.yaml": "- value: 99", ".eval_results/a/b.yml": "- value: 98"}
    other: Files = {".eval_results/notes.txt": "mine", "eval_results/a.yaml": "mine", "pytorch_model.bin": b"old"}
    hub.create("me/model", {"model.safetensors": b"old", "config.json": CONFIG, **results, **other})
    shown = phard("push", release, "me/model", "--dry-run").out
    for path in results:
        assert [line.split()[0] for line in shown.splitlines() if line.endswith(path)] == ["deleted"]
    assert "stays, with weights that are not hardened: pytorch_model.bin" in shown
    push(release, "me/model")
    there = hub.files("me/model")
    assert not results.keys() & there.keys()
    assert other.keys() <= there.keys()
    assert len(hub.asked("commit")) == 1
    hub.commit("me/model", results)  # of the weights that are there now
    assert not push(release, "me/model").sent
    assert results.keys() <= hub.files("me/model").keys()
    push(other_release, "me/model")
    assert not results.keys() & hub.files("me/model").keys()


def test_a_card_that_speaks_to_the_terminal_is_shown_without_that(hub: Hub, release: Path, phard: Phard) -> None:
    hub.login()
    hub.create("me/model", {"README.md": "# Mine \x1b[2J\u202e\rgone\x07"})
    done = phard("push", release, "me/model", "--dry-run")
    assert done.code == 0
    assert "-# Mine \ufffd[2J\ufffd\n-gone\ufffd" in done.out
    assert not {"\x1b", "\u202e", "\r", "\x07"} & {*done.out}


def test_no_secret_is_sent(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary4711"
    home = tmp_path / f"{canary}-home" / "user"
    monkeypatch.setenv("HOME", str(home))
    place = home / f"{canary}-folder"
    place.mkdir(parents=True)
    settings = {"cache": f"{home}/.cache", "of": f"{place}/tiny", "where": [f"{place}/data/birds"]}
    release = make_release(
        place / "hardened",
        source=Source(repo=f"{place}/tiny", commit=None),
        dataset=f"{place}/data/birds, tested on {place}/data/other",
    )
    report = json.loads((release / REPORT_NAME).read_text())
    report["hardening"]["settings"] |= settings
    report["source"]["repo"] = f"{place}/tiny"  # as before releases were written without local paths
    report["dataset"] = f"{place}/data/birds, tested on {place}/data/other"
    (release / REPORT_NAME).write_text(json.dumps(report))
    token = hub.login(user="me")
    push(release, "me/model", no_gate="a test")
    push(release, "me/model", no_gate="another test", pr=True)
    assert not push(release, "me/model", no_gate="a test").sent
    sent = [request.body for request in hub.log] + [
        request.path.encode() + request.query.encode() for request in hub.log
    ]
    sent += [*hub.files("me/model").values(), json.dumps(hub.payloads).encode()]
    for secret in (canary, token, str(tmp_path), os.environ["HF_TOKEN"]):
        assert not [body for body in sent if secret.encode() in body]
    pushed = json.loads(hub.files("me/model")[REPORT_NAME])
    assert (pushed["source"]["repo"], pushed["dataset"]) == ("tiny", "birds, tested on other")
    assert pushed["hardening"]["settings"]["cache"] == "~/.cache"
    assert b"birds, tested on other" in hub.files("me/model")["README.md"]
    assert "model.safetensors" in without_card(hub.files("me/model"))
