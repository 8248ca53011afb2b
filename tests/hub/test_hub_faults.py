"""The loopback Hub's strictness and its faults, as the real clients see them; and other programs as clients."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard, WebhookPayload, metadata_update
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from tests.hub.test_hub_server import CARD, CONFIG, FILES, WEIGHTS, add, commit, read
from tests.hub_server import Hub

# --- cards ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("license: my-own", "license"),
        ("license: no", "license"),
        ("tags: one", "tags"),
        ("base_model: a b", "base_model"),
        ("base_model_relation: copy", "base_model_relation"),
        ("pipeline_tag: Image Classification", "pipeline_tag"),
        ("model-index: [{name: x, results: [{task: {type: t}}]}]", "model-index.0.results.0.dataset"),
        ("- a list", "must be an object"),
        ("a: [", "cannot be parsed"),
    ],
)
def test_a_wrong_card_is_refused(hub: Hub, metadata: str, expected: str) -> None:
    hub.login()
    hub.create("me/model", FILES)
    before = hub.state()
    card = f"---\n{metadata}\n---\ntext"
    with pytest.raises(ValueError, match=expected):
        commit("me/model", add("README.md", card))
    # A client that does not ask first is refused, too.
    content = base64.b64encode(card.encode()).decode()
    assert post_commit(hub, {"key": "file", "value": {"path": "README.md", "content": content}}) == 400
    assert hub.state() == before


def post_commit(hub: Hub, operation: dict[str, Any]) -> int:
    body = json.dumps({"key": "header", "value": {"summary": "x"}}) + "\n" + json.dumps(operation)
    headers = {"Authorization": f"Bearer {os.environ['HF_TOKEN']}"}
    url = f"{hub.endpoint}/api/models/me/model/commit/main"
    return int(httpx.post(url, content=body, headers=headers).status_code)


def test_a_card_round_trips(hub: Hub) -> None:
    hub.login()
    hub.create("me/model", {"README.md": CARD})
    metadata_update("me/model", {"license": "apache-2.0"}, overwrite=True)
    card = ModelCard.load("me/model")
    assert card.data.license == "apache-2.0"
    card.validate()
    card.text += "more"
    card.push_to_hub("me/model")
    assert hub.files("me/model")["README.md"].endswith(b"more")


# --- trouble -------------------------------------------------------------------------------------------------


def test_errors_end(hub: Hub) -> None:
    hub.create("org/model", FILES)
    hub.fail("info", status=503, times=1, skip=1)
    api = HfApi()
    api.model_info("org/model")
    with pytest.raises(HfHubHTTPError, match="503"):
        api.model_info("org/model")
    api.model_info("org/model")
    assert [request.status for request in hub.asked("info")] == [200, 503, 200]


def test_a_transfer_that_breaks_is_taken_up(hub: Hub) -> None:
    weights = WEIGHTS * 120  # 12 MB: the client keeps what it got in steps of 10 MiB
    hub.create("org/model", {"model.safetensors": weights})
    hub.fail("download", drop_after=11_000_000)
    assert read("org/model", "model.safetensors") == weights
    assert [request.status for request in hub.asked("download")] == [200, 206]


def test_no_answer_at_all(hub: Hub) -> None:
    hub.create("org/model", FILES)
    hub.fail("info", drop_after=0)
    with pytest.raises(httpx.RemoteProtocolError):
        HfApi().model_info("org/model")
    assert hub.log[-1].status == 0


def test_slow_and_wrong_content(hub: Hub) -> None:
    hub.create("org/model", FILES)
    hub.fail("download", slow=0.3)
    hub.fail("download", corrupt=True)
    data = read("org/model", "model.safetensors")
    assert len(data) == len(WEIGHTS)
    assert data != WEIGHTS


def test_nobody_listens(hub: Hub) -> None:
    hub.create("org/model", FILES)
    read("org/model", "config.json")
    with hub.down():
        assert read("org/model", "config.json") == CONFIG.encode()
        with pytest.raises(httpx.ConnectError):
            HfApi().model_info("org/model")
    assert read("org/model", "README.md") == CARD.encode()


def test_a_full_account(hub: Hub) -> None:
    hub.login()
    hub.create("me/model", FILES)
    hub.quota = 150_000
    before = hub.state()
    with pytest.raises(HfHubHTTPError, match="Storage limit"):
        commit("me/model", add("b.safetensors", b"\0" * 50_000))
    assert hub.state() == before
    commit("me/model", add("b.safetensors", b"\0" * 1000))


def test_uploads_are_checked(hub: Hub) -> None:
    hub.login()
    hub.create("me/model")
    with pytest.raises(ValueError, match="no route"):
        hub.fail("comit")
    for value in ({"path": "w", "oid": "0" * 64, "size": 3}, {"path": "../w", "content": ""}):
        assert post_commit(hub, {"key": "lfsFile" if "oid" in value else "file", "value": value}) == 400


# --- webhooks ------------------------------------------------------------------------------------------------


def test_webhooks_are_told(hub: Hub) -> None:
    hub.login()
    old = hub.create("me/model", FILES)
    hub.webhook(f"{hub.endpoint}/api/hook", secret="s", repo="me/model")
    made = commit("me/model", add("a.txt", "x"), create_pr=True)
    HfApi().comment_discussion("me/model", 1, "/gate")
    HfApi().merge_pull_request("me/model", 1)
    told = [WebhookPayload.model_validate(payload) for payload in hub.payloads]
    assert [(payload.event.action, payload.event.scope) for payload in told] == [
        ("create", "repo"),
        ("update", "repo.content"),
        ("create", "discussion"),
        ("update", "repo.content"),
        ("create", "discussion.comment"),
        ("update", "repo.content"),
        ("update", "discussion"),
    ]
    opened, pushed, comment, merged = told[2:6]
    assert opened.discussion
    assert (opened.discussion.isPullRequest, opened.discussion.num, opened.discussion.status) == (True, 1, "open")
    assert pushed.updatedRefs
    assert pushed.updatedRefs[0].model_dump() == {"ref": "refs/pr/1", "oldSha": old, "newSha": made.oid}
    assert comment.comment
    assert comment.comment.content == "/gate"
    assert merged.updatedRefs
    assert merged.updatedRefs[0].ref == "refs/heads/main"
    deliveries = hub.deliveries()
    assert len(deliveries) == 5
    assert {delivery.status for delivery in deliveries} == {404}  # the Hub itself is no receiver of webhooks


# --- other programs ------------------------------------------------------------------------------------------


def test_a_child_process_finds_it(hub: Hub) -> None:
    hub.create("org/secret", FILES, private=True)
    hub.login("read", user="org")
    code = "from huggingface_hub import hf_hub_download as d; print(open(d('org/secret', 'config.json')).read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == CONFIG


def test_it_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "model" / "config.json").write_text("{}")
    (tmp_path / "datasets" / "org" / "data").mkdir(parents=True)
    (tmp_path / "datasets" / "org" / "data" / "a.csv").write_text("a,b")
    command = [sys.executable, "-m", "tests.hub_server", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        try:
            assert server.stdout
            told = dict(word.split("=", 1) for word in server.stdout.readline().split()[1:])
            api = HfApi(endpoint=told["HF_ENDPOINT"], token=told["HF_TOKEN"])
            assert api.file_exists("org/model", "config.json")
            assert api.list_repo_files("org/data", repo_type="dataset") == [".gitattributes", "a.csv"]
            assert {org["name"] for org in api.whoami()["orgs"]} == {"org"}
        finally:
            server.terminate()
