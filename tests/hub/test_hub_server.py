"""The loopback Hub, as the real clients see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from tests.hub_server import Hub


def test_upload_download(hub: Hub) -> None:
    hub.login(user="me")
    api = HfApi()
    assert api.whoami()["name"] == "me"
    api.create_repo("me/model")
    ops = [CommitOperationAdd("a.txt", b"hello"), CommitOperationAdd("w.safetensors", b"x" * 1000)]
    info = api.create_commit("me/model", ops, commit_message="one", parent_commit=hub.head("me/model"))
    assert hub.files("me/model")["w.safetensors"] == b"x" * 1000
    path = snapshot_download("me/model")
    assert path.endswith(info.oid)
    assert Path(hf_hub_download("me/model", "a.txt")).read_text() == "hello"
    assert not hub.leaks()
    pr = api.create_commit("me/model", [CommitOperationAdd("a.txt", b"pr")], commit_message="two", create_pr=True)
    assert pr.pr_num == 1
    assert Path(hf_hub_download("me/model", "a.txt", revision="refs/pr/1")).read_text() == "pr"
    api.merge_pull_request("me/model", 1)
    assert hub.files("me/model")["a.txt"] == b"pr"
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("me/model", [CommitOperationAdd("a.txt", b"3")], commit_message="x", parent_commit=info.oid)
