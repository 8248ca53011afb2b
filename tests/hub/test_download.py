"""Pulling from a Hub: looked at first, pinned, checked, taken up again, and from the cache when nobody answers."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, constants

from phard_hub.errors import HubUnavailableError, OutputError, PhardError, RepoError
from phard_hub.hub.audit import audit
from phard_hub.hub.pull import pull
from phard_hub.models.loading import load
from tests.hub.test_release import small_files
from tests.hub_server import Hub

REPO = "org/model"
Files = dict[str, str | bytes]


@pytest.fixture(autouse=True)
def brief_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits before trying again, we or the client, does not wait long."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))


@pytest.fixture
def files(tiny_checkpoint: Path) -> Files:
    found: Files = {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}
    return found | {
        "README.md": "---\nlicense: mit\n---\n# Tiny\n",
        "pytorch_model.bin": b"\x80\x04pickle",
        "code.py": "raise SystemExit",
        "onnx/model.safetensors": b"another format",
    }


def cached() -> list[str]:
    """The files in the cache of the Hub's client, but for its own notes."""
    blobs = Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*")
    return sorted(path.name for path in blobs)


def statuses(hub: Hub, route: str) -> list[int]:
    return [request.status for request in hub.asked(route)]


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
    for route in ("tree", "resolve", "download"):
        hub.when(route, lambda: hub.commit(REPO, {"config.json": "{}", "model.safetensors": b"evil"}))
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


# --- broken transfers ----------------------------------------------------------------------------------------

HICCUPS: list[tuple[str, dict[str, Any]]] = [
    ("info", {"status": 503}),
    ("info", {"drop_after": 0}),
    ("tree", {"status": 500}),
    ("resolve", {"status": 502}),
    ("resolve", {"path": "config.json", "method": "GET", "drop_after": 10}),
    ("download", {"status": 503}),
    ("download", {"drop_after": 0}),
    ("download", {"drop_after": 5000, "times": 3}),
    ("download", {"corrupt": True}),
    ("resolve", {"path": "config.json", "method": "GET", "corrupt": True}),
]


@pytest.mark.parametrize(("route", "fault"), HICCUPS)
def test_a_pull_survives_one_fault(hub: Hub, files: Files, route: str, fault: dict[str, Any]) -> None:
    hub.create(REPO, files)
    hub.fail(route, **fault)
    snapshot = pull(REPO)
    for name in snapshot.files:
        content = files[name]
        assert (snapshot.folder / name).read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert snapshot.from_cache is None
    assert all(fault.times == 0 for fault in hub.faults)


def test_a_broken_transfer_is_taken_up_where_it_ended(hub: Hub, files: Files) -> None:
    weights = bytes(range(256)) * 60_000  # 15 MB: the client keeps what it got in steps of 10 MiB
    hub.create(REPO, {**files, "model.safetensors": weights})
    hub.fail("download", drop_after=11_000_000)
    snapshot = pull(REPO)
    assert snapshot.files["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert statuses(hub, "download") == [200, 206]


def test_a_slow_hub_is_waited_for(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    hub.fail("download", slow=0.5)
    assert pull(REPO).from_cache is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_content_that_stays_wrong_is_refused_and_not_kept(hub: Hub, files: Files, name: str) -> None:
    hub.create(REPO, files)
    hub.fail("resolve" if name == "config.json" else "download", path=name, method="GET", corrupt=True, times=None)
    with pytest.raises(RepoError, match=f"{name} of org/model has another hash than the Hub says"):
        pull(REPO)
    hub.faults.clear()
    assert pull(REPO).files[name]
    assert len(statuses(hub, "download")) == (1 if name == "config.json" else 3)


# --- nobody answers ------------------------------------------------------------------------------------------

STEPS = ("info", "tree", "resolve", "download")


@pytest.mark.parametrize("how", [{"status": 503}, {"drop_after": 0}])
@pytest.mark.parametrize("step", STEPS)
def test_the_hub_goes_down_at_each_step(hub: Hub, files: Files, step: str, how: dict[str, Any]) -> None:
    hub.create(REPO, files)
    hub.fail(step, times=None, **how)
    with pytest.raises(HubUnavailableError, match="The Hub did not give org/model") as caught:
        pull(REPO)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    hub.faults.clear()
    assert pull(REPO).from_cache is None


def test_nobody_listens_and_nothing_is_cached(hub: Hub) -> None:
    with hub.down(), pytest.raises(HubUnavailableError, match=r"the cache does not hold it: .*refused"):
        pull(REPO)


@pytest.mark.parametrize("revision", [None, "main", "v1", "sha"])
def test_the_cache_does_when_the_hub_is_down(
    hub: Hub, files: Files, revision: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    sha = hub.create(REPO, files)
    hub.tag(REPO, "v1")
    revision = sha if revision == "sha" else revision
    before = pull(REPO, revision)
    hub.commit(REPO, {"config.json": "{}"})
    with hub.down(), caplog.at_level(logging.WARNING, "phard_hub"):
        snapshot = pull(REPO, revision)
    assert snapshot.files == before.files
    assert set(snapshot.listing) == set(before.listing)
    assert snapshot.commit == sha
    assert snapshot.from_cache
    assert "refused" in snapshot.from_cache
    assert f"using org/model at {sha[:12]} from the cache" in caplog.text


def test_whoever_pulls_hears_of_it(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    pull(REPO)
    code = "from phard_hub import pull; pull('org/model')"
    with hub.down():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(
        r"The Hub does not answer \(.*refused\): using org/model at [0-9a-f]{12} from the cache", done.stderr
    )


def test_offline_mode(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO, files)
    pull(REPO)
    asked = len(hub.log)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline" in (pull(REPO).from_cache or "").lower()
    assert len(hub.log) == asked


def test_a_cache_without_the_weights_is_not_enough(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    pull(REPO, weights=False)
    with hub.down():
        assert pull(REPO, weights=False).from_cache
        with pytest.raises(HubUnavailableError, match="the cache does not hold it"):
            pull(REPO)


def test_access_that_was_withdrawn_is_not_replaced_by_the_cache(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    pull(REPO)
    hub.login()
    HfApi(token=hub.token(user="org")).update_repo_settings(REPO, private=True)
    with pytest.raises(RepoError, match="or it is private"):
        pull(REPO)


def test_a_damaged_cache_is_repaired_or_refused(hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    good = pull(REPO)
    weights = good.folder / "model.safetensors"
    weights.resolve().write_bytes(b"damaged")
    assert pull(REPO).files == good.files
    weights.resolve().write_bytes(b"damaged")
    with hub.down(), pytest.raises(HubUnavailableError, match=r"copy of model\.safetensors of org/model is damaged"):
        pull(REPO)
    assert pull(REPO).files == good.files


# --- the disk ------------------------------------------------------------------------------------------------


def test_the_disk_is_full(hub: Hub, files: Files) -> None:
    hub.create(REPO, {**files, "model.safetensors": b"\0" * 10_000_000})
    with small_files(), pytest.raises(OutputError, match="Cannot write org/model into the cache: File too large"):
        pull(REPO)
    assert len(cached()) <= 3
    assert pull(REPO).files


def test_a_disk_that_is_too_small_is_noticed_before(hub: Hub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO, files)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=100))
    with pytest.raises(OutputError, match=r"org/model needs .* GB"):
        pull(REPO)
    assert cached() == []
