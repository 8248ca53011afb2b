"""The loopback Hub, as the real clients see it: what is there, who may do what, and changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import Hub

WEIGHTS = bytes(range(256)) * 400
CONFIG = '{"model_type": "vit"}'
CARD = "---\nlicense: mit\ntags: [vision]\n---\n# Hello\n"
FILES: dict[str, str | bytes] = {
    "README.md": CARD,
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "sub/a.txt": "a",
}


def add(path: str, content: str | bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content.encode() if isinstance(content, str) else content)


def commit(repo: str, *operations: Any, **options: Any) -> Any:
    return HfApi().create_commit(repo, list(operations), commit_message="change", **options)


def read(repo: str, path: str, revision: str | None = None) -> bytes:
    return Path(hf_hub_download(repo, path, revision=revision)).read_bytes()


# --- what is there -------------------------------------------------------------------------------------------


def test_a_repository_is_described(hub: Hub) -> None:
    sha = hub.create("org/model", FILES)
    hub.tag("org/model", "v1")
    hub.flag("org/model", "sub/a.txt", "suspicious")
    info = HfApi().model_info("org/model", files_metadata=True, securityStatus=True)
    assert (info.id, info.sha, info.author, info.private, info.gated) == ("org/model", sha, "org", False, False)
    assert set(info.tags or []) == {"vision", "license:mit"}
    assert info.security_repo_status == {
        "scansDone": True,
        "filesWithIssues": [{"path": "sub/a.txt", "level": "suspicious"}],
    }
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert set(siblings) == {*FILES, ".gitattributes"}
    weights = siblings["model.safetensors"]
    assert weights.size == len(WEIGHTS)
    assert weights.lfs
    assert not siblings["config.json"].lfs
    assert HfApi().model_info("org/model", revision="v1").sha == sha
    assert HfApi().model_info("org/model", revision=sha[:7]).sha == sha


def test_files_come_as_they_were_put(hub: Hub) -> None:
    sha = hub.create("org/model", FILES)
    folder = Path(snapshot_download("org/model"))
    assert folder.name == sha
    for path, content in FILES.items():
        assert (folder / path).read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert len(hub.asked("download")) == 1


@pytest.mark.parametrize("page_size", [1000, 2])
def test_trees_come_in_pages(hub: Hub, page_size: int) -> None:
    hub.create("org/model", FILES)
    hub.page_size = page_size
    tree = [entry.path for entry in HfApi().list_repo_tree("org/model", recursive=True)]
    assert tree == [".gitattributes", "README.md", "config.json", "model.safetensors", "sub", "sub/a.txt"]
    assert [entry.path for entry in HfApi().list_repo_tree("org/model")] == tree[:-1]
    assert [entry.path for entry in HfApi().list_repo_tree("org/model", "sub")] == ["sub/a.txt"]
    assert len(hub.asked("tree")) == (3 if page_size == 1000 else 7)
    assert [model.id for model in HfApi().list_models(author="org")] == ["org/model"]


def test_ranges(hub: Hub) -> None:
    import numpy as np
    from safetensors.numpy import save

    hub.create("org/model", {"model.safetensors": save({"w": np.zeros((2, 3), np.float32)})})
    metadata = HfApi().get_safetensors_metadata("org/model")
    assert metadata.parameter_count == {"F32": 6}
    assert {request.status for request in hub.asked("download")} == {206}


@pytest.mark.parametrize("lost", ["repository", "revision", "entry"])
def test_what_is_not_there(hub: Hub, lost: str) -> None:
    hub.create("org/model", FILES)
    error, arguments = {
        "repository": (RepositoryNotFoundError, ("org/other", "config.json", None)),
        "revision": (RevisionNotFoundError, ("org/model", "config.json", "v9")),
        "entry": (EntryNotFoundError, ("org/model", "none.json", None)),
    }[lost]
    with pytest.raises(error):
        read(*arguments)


# --- who may do what -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [None, "read", "write"])
def test_private_repositories_exist_for_their_owners_only(hub: Hub, role: Any) -> None:
    hub.create("org/secret", FILES, private=True)
    if role:
        hub.login(role, user="stranger")
    with pytest.raises(RepositoryNotFoundError):
        read("org/secret", "config.json")
    hub.login("read", user="member", orgs=("org",))
    assert read("org/secret", "model.safetensors") == WEIGHTS
    assert not hub.leaks()


def test_gated_repositories_ask_for_acceptance(hub: Hub) -> None:
    hub.create("org/gated", FILES, gated="manual")
    assert HfApi().model_info("org/gated").gated == "manual"
    for role in (None, "read"):
        if role:
            hub.login("read", user="me")
        with pytest.raises(GatedRepoError):
            read("org/gated", "config.json")
        with pytest.raises(GatedRepoError):
            HfApi().auth_check("org/gated")
    hub.accept("org/gated", user="me")
    assert read("org/gated", "model.safetensors") == WEIGHTS
    HfApi().auth_check("org/gated")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: HfApi().create_repo("org/new"),
        lambda: commit("org/model", add("a.txt", "x")),
        lambda: commit("org/model", add("big.bin", b"\0" * 99)),
        lambda: HfApi().create_tag("org/model", tag="v2"),
        lambda: HfApi().delete_repo("org/model"),
        lambda: HfApi().update_repo_settings("org/model", private=True),
        lambda: HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="org/model", create_pr=True),
        lambda: HfApi().create_discussion("org/model", title="hello"),
    ],
)
def test_a_read_token_changes_nothing(hub: Hub, attempt: Callable[[], object]) -> None:
    hub.create("org/model", FILES)
    hub.login("read", orgs=("org",))
    before = hub.state()
    with pytest.raises(HfHubHTTPError, match="403"):
        attempt()
    assert hub.state() == before
    hub.logout()
    with pytest.raises(HfHubHTTPError, match="401"):
        attempt()
    assert hub.state() == before


def test_strangers_may_only_open_pull_requests(hub: Hub) -> None:
    hub.create("org/model", FILES)
    hub.login("write", user="stranger")
    head = hub.head("org/model")
    with pytest.raises(HfHubHTTPError, match="403"):
        commit("org/model", add("a.txt", "x"))
    made = commit("org/model", add("a.txt", "x"), create_pr=True)
    commit("org/model", add("b.txt", "x"), revision=f"refs/pr/{made.pr_num}")
    assert hub.head("org/model") == head
    assert {"a.txt", "b.txt"} < hub.files("org/model", "refs/pr/1").keys()
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi().merge_pull_request("org/model", 1)


def test_a_wrong_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("org/model", FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi().whoami()
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi().model_info("org/model")


# --- changes -------------------------------------------------------------------------------------------------


def test_repositories_are_created_and_deleted(hub: Hub) -> None:
    hub.login(orgs=("org",))
    api = HfApi()
    assert api.whoami()["orgs"][0]["name"] == "org"
    assert str(api.create_repo("org/new", private=True)) == f"{hub.endpoint}/org/new"
    assert api.create_repo("org/new", exist_ok=True).repo_id == "org/new"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("org/new")
    assert hub.state()["models/org/new"]["private"]
    api.update_repo_settings("org/new", private=False, gated="auto")
    assert api.model_info("org/new").gated == "auto"
    api.create_repo("space", repo_type="space", space_sdk="gradio")
    assert api.space_info("me/space").sdk == "gradio"
    api.delete_repo("org/new")
    assert not api.repo_exists("org/new")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("stranger/new")


def test_a_folder_is_uploaded(hub: Hub, tmp_path: Path) -> None:
    hub.login()
    hub.create("me/model", {"old.txt": "x", "kept.txt": "x"})
    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content.encode() if isinstance(content, str) else content)
    HfApi().upload_folder(repo_id="me/model", folder_path=tmp_path, delete_patterns="old.*")
    assert hub.files("me/model").keys() == {*FILES, "kept.txt", ".gitattributes"}
    assert hub.files("me/model")["model.safetensors"] == WEIGHTS
    assert not hub.leaks()
    before = hub.state()
    HfApi().upload_folder(repo_id="me/model", folder_path=tmp_path)
    assert hub.state() == before


def test_a_commit_adds_deletes_and_copies(hub: Hub) -> None:
    hub.login()
    hub.create("me/model", FILES)
    operations = [
        CommitOperationDelete("sub/", is_folder=True),
        CommitOperationDelete("config.json"),
        CommitOperationCopy("model.safetensors", "copy.safetensors"),
        CommitOperationCopy("README.md", "copy.md"),
    ]
    made = commit("me/model", *operations, add("new.txt", "new"))
    assert hub.head("me/model") == made.oid
    files = hub.files("me/model")
    assert files.keys() == {
        "README.md", "copy.md", "model.safetensors", "copy.safetensors", "new.txt", ".gitattributes",
    }  # fmt: skip
    assert files["copy.safetensors"] == WEIGHTS
    assert [entry.title for entry in HfApi().list_repo_commits("me/model")] == [
        "change",
        "Update files",
        "initial commit",
    ]


def test_a_stale_parent_is_refused(hub: Hub) -> None:
    hub.login()
    parent = hub.create("me/model", FILES)
    hub.when("commit", lambda: hub.commit("me/model", {"a.txt": "first"}))
    with pytest.raises(HfHubHTTPError, match="412"):
        commit("me/model", add("a.txt", "second"), parent_commit=parent)
    assert hub.files("me/model")["a.txt"] == b"first"
    made = commit("me/model", add("a.txt", "second"), parent_commit=parent, create_pr=True)
    assert hub.discussions("me/model")[0].base == parent
    assert HfApi().get_discussion_details("me/model", made.pr_num).conflicting_files == ["a.txt"]


def test_tags_and_branches(hub: Hub) -> None:
    hub.login()
    first = hub.create("me/model", FILES)
    api = HfApi()
    api.create_branch("me/model", branch="next", revision=first)
    api.create_branch("me/model", branch="next", exist_ok=True)
    api.create_tag("me/model", tag="v1", revision="next")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("me/model", tag="v1")
    commit("me/model", add("a.txt", "x"), revision="next")
    assert read("me/model", "a.txt", "next") == b"x"
    refs = api.list_repo_refs("me/model")
    assert {ref.name for ref in refs.branches} == {"main", "next"}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", first)]
    api.delete_tag("me/model", tag="v1")
    api.delete_branch("me/model", branch="next")
    assert hub.state()["models/me/model"]["refs"] == {"refs/heads/main": first}


def test_a_pull_request_lives(hub: Hub) -> None:
    hub.login()
    hub.create("me/model", FILES)
    api = HfApi()
    made = commit("me/model", add("a.txt", "x"), create_pr=True, commit_description="why")
    assert made.pr_url == f"{hub.endpoint}/me/model/discussions/1"
    assert read("me/model", "a.txt", "refs/pr/1") == b"x"
    api.comment_discussion("me/model", 1, "looks good")
    details = api.get_discussion_details("me/model", 1)
    assert (details.status, details.title, details.author) == ("open", "change", "me")
    assert [event.type for event in details.events] == ["comment", "commit", "comment"]
    api.rename_discussion("me/model", 1, "better name")
    api.merge_pull_request("me/model", 1)
    assert hub.files("me/model")["a.txt"] == b"x"
    assert api.get_discussion_details("me/model", 1).merge_commit_oid == hub.head("me/model")
    api.create_pull_request("me/model", title="later")
    api.create_discussion("me/model", title="talk")
    api.change_discussion_status("me/model", 3, "closed")
    found = list(api.get_repo_discussions("me/model"))
    assert [(item.num, item.status) for item in found] == [(3, "closed"), (2, "draft"), (1, "merged")]
    assert [item.num for item in api.get_repo_discussions("me/model", discussion_type="pull_request")] == [2, 1]
