"""Pulling from a Hub: looked at first, pinned, checked, taken up again, and from the cache when nobody answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from phard_hub.auditing import audit
from phard_hub.errors import PhardError, RepoError
from phard_hub.hub.pull import pull
from phard_hub.models.loading import load
from tests.hub_server import Hub

pytestmark = pytest.mark.usefixtures("brief_waits")
REPO = "org/model"
Files = dict[str, str | bytes]


def cached() -> list[str]:
    """The files in the cache of the Hub's client, but for its own notes."""
    blobs = Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*")
    return sorted(path.name for path in blobs)


# --- what is pulled ------------------------------------------------------------------------------------------


def test_only_what_is_needed_is_downloaded_and_pinned(hub: Hub, files: Files) -> None:
    sha = hub.create(REPO, files)
    hub.tag(REPO, "v1")
    hub.flag(REPO, "pytorch_model.bin", "unsafe")
    snapshot = pull(REPO, "v1")
    assert snapshot.commit == sha
    assert set(snapshot.files) == {"README.md", "config.json", "preprocessor_config.json", "model.safetensors"}
    assert set(snapshot.listing) == {*files, ".gitattributes"}
    assert snapshot.flagged == ("pytorch_model.bin (unsafe)",)
    assert (snapshot.license, snapshot.from_cache, snapshot.left_out) == ("mit", None, ())
    weights = files["model.safetensors"]
    assert isinstance(weights, bytes)
    assert snapshot.files["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    asked = {request.path.rsplit("/", 1)[1] for request in hub.asked("resolve")}
    assert asked == set(snapshot.files)
    first = next(request.route for request in hub.log)
    assert first == "info"
    assert len(cached()) == 4


def test_a_pulled_model_runs(hub: Hub, files: Files) -> None:
    del files["code.py"]
    hub.create(REPO, files)
    classifier = load(audit(pull(REPO)))
    assert classifier.labels == ("cat", "dog", "owl", "fox")
    assert classifier(torch.rand(2, 3, 32, 32)).shape == (2, 4)


def test_a_timm_model(hub: Hub) -> None:
    timm = pytest.importorskip("timm", exc_type=ImportError)
    hub.login()
    network = timm.create_model("resnet10t", num_classes=3, pretrained=False)
    timm.models.push_to_hf_hub(network, "me/timm", safe_serialization=True)
    snapshot = pull("me/timm")
    assert set(snapshot.files) == {"README.md", "config.json", "model.safetensors"}
    assert json.loads((snapshot.folder / "config.json").read_bytes())["architecture"] == "resnet10t"


def test_without_weights(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    assert "model.safetensors" not in pull(REPO, weights=False).files
    assert not hub.asked("download")


def test_a_private_and_a_gated_model_with_a_token(hub: Hub, files: Files) -> None:
    hub.create(REPO, files, private=True)
    hub.create("org/gated", files, gated="auto")
    hub.login("read", user="me", orgs=("org",))
    assert pull(REPO).commit == hub.head(REPO)
    assert pull("org/gated").commit == hub.head("org/gated")
    assert not hub.leaks()


def test_what_changes_while_it_is_pulled_stays_out(hub: Hub, files: Files) -> None:
    sha = hub.create(REPO, files)
    for route, skip in (("info", 1), ("tree", 0), ("resolve", 0), ("download", 0)):
        hub.when(route, lambda: hub.commit(REPO, {"config.json": "{}", "model.safetensors": b"evil"}), skip=skip)
    snapshot = pull(REPO)
    assert snapshot.commit == sha != hub.head(REPO)
    assert (snapshot.folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert (snapshot.folder / "config.json").read_bytes() == files["config.json"]


# --- what is refused -----------------------------------------------------------------------------------------


def private(hub: Hub, files: Files) -> None:
    hub.create(REPO, files, private=True)


def of_strangers(hub: Hub, files: Files) -> None:
    hub.create(REPO, files, private=True)
    hub.login(user="stranger")


def gated(hub: Hub, files: Files) -> None:
    hub.create(REPO, files, gated="manual")


def gated_to_strangers(hub: Hub, files: Files) -> None:
    hub.create(REPO, files, gated="manual")
    hub.login(user="stranger")


def only_pickles(hub: Hub, files: Files) -> None:
    hub.create(REPO, {"config.json": "{}", "pytorch_model.bin": b"\x80", "onnx/model.safetensors": b"x"})


def unsafe(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    hub.flag(REPO, "model.safetensors", "unsafe")


def huge_config(hub: Hub, files: Files) -> None:
    hub.create(REPO, {**files, "config.json": b"{" + b" " * 33 * 2**20 + b"}"})


def expired_token(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    hub.login()
    hub.store.tokens.clear()


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (lambda hub, files: None, "There is no folder and no model org/model"),
        (private, "no model org/model on the Hub, or it is private"),
        (of_strangers, "no model org/model on the Hub, or it is private"),
        (gated, "org/model is gated"),
        (gated_to_strangers, "org/model is gated"),
        (only_pickles, r"has no \*\.safetensors file"),
        (unsafe, "call model.safetensors of org/model unsafe; nothing was downloaded"),
        (huge_config, "config.json of org/model has 35 MB"),
        (expired_token, "The Hub refuses org/model: Invalid credentials"),
    ],
)
def test_what_cannot_be_pulled(hub: Hub, files: Files, prepare: Callable[[Hub, Any], None], problem: str) -> None:
    prepare(hub, files)
    with pytest.raises(RepoError, match=problem) as caught:
        pull(REPO)
    assert caught.value.advice
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert cached() == []
    assert not hub.asked("download")


def test_no_such_revision(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    with pytest.raises(RepoError, match="org/model has no revision 'v9'"):
        pull(REPO, "v9")


def test_a_readme_of_200_megabytes_is_left_out(hub: Hub, files: Files, caplog: pytest.LogCaptureFixture) -> None:
    hub.create(REPO, {**files, "README.md": b"#" * 200_000_000})
    snapshot = pull(REPO)
    assert snapshot.left_out == ("README.md (200 MB)",)
    assert "README.md" not in snapshot.files
    assert "README.md of org/model has 200 MB and is left out" in caplog.text
    assert not [request for request in hub.asked("resolve") if "README" in request.path]
    with hub.down():
        assert pull(REPO).files == snapshot.files


@pytest.mark.parametrize(
    "path", ["../../secret.safetensors", "/etc/passwd", "sub/model.safetensors", "pytorch_model.bin"]
)
def test_an_index_leads_nowhere(hub: Hub, files: Files, path: str) -> None:
    index = json.dumps({"weight_map": {"a": path, "b": "model.safetensors"}})
    hub.create(REPO, {**files, "model.safetensors.index.json": index})
    snapshot = pull(REPO)
    assert {request.path.rsplit("/", 1)[1] for request in hub.asked("resolve")} == set(snapshot.files)
    assert "PH-A06" in {finding.id for finding in audit(snapshot).errors}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-100],
        lambda data: data + b"\0" * 100,
        lambda data: (2**62).to_bytes(8, "little") + data[8:],
        lambda data: b"",
    ],
)
def test_weights_that_are_cut_off_or_too_long(hub: Hub, files: Files, spoil: Callable[[bytes], bytes]) -> None:
    del files["code.py"]
    weights = files["model.safetensors"]
    assert isinstance(weights, bytes)
    hub.create(REPO, {**files, "model.safetensors": spoil(weights)})
    with pytest.raises(PhardError, match=r"model\.safetensors") as caught:
        load(audit(pull(REPO)))
    assert caught.value.exit_code == 2
