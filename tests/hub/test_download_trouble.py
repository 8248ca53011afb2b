"""Pulling from a Hub in trouble: transfers that break, content that is wrong, nobody who answers, a full disk."""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from phard_hub.errors import HubUnavailableError, OutputError, RepoError
from phard_hub.hub.pull import pull
from tests.command import Phard
from tests.hub.test_download import REPO, Files, cached
from tests.hub_server import Hub
from tests.release.test_release import small_files

pytestmark = pytest.mark.usefixtures("brief_waits")


def statuses(hub: Hub, route: str) -> list[int]:
    return [request.status for request in hub.asked(route)]


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
        r"The Hub does not answer \(.*refused.*\): using org/model at [0-9a-f]{12} from the cache", done.stderr
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


def test_the_command_says_it_in_one_line(hub: Hub, files: Files, phard: Phard) -> None:
    hub.create(REPO, files, gated="auto")
    refused = phard("measure", REPO, "--images", "org/data")
    with hub.down():
        silent = phard("measure", "org/other", "--images", "org/data")
    assert (refused.code, refused.err) == (
        2,
        "phard: org/model is gated. Accept its terms on the Hub and log in with `hf auth login`.\n",
    )
    assert silent.code == 3
    assert re.fullmatch(r"phard: The Hub did not give org/other.*refused.*\n", silent.err)


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
    assert good.origin is not None
    weights = good.origin / "model.safetensors"
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
