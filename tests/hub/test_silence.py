"""What is said where the Hub cannot be reached: what stands in the way, and what the user can do about it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.command import Done
from tests.hub_server import Hub

CASES: dict[str, tuple[dict[str, str], int, str]] = {
    "offline": ({"HF_HUB_OFFLINE": "1"}, 3, "HF_HUB_OFFLINE is set. Unset it, or give a local folder."),
    "no proxy there": (
        {"HTTP_PROXY": "http://127.0.0.1:9"},
        3,
        "Connection refused. Check the proxy that HTTP_PROXY names, or give a local folder.",
    ),
    "nobody listens": (
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
        3,
        "Connection refused (http://127.0.0.1:9). Check your network, or give a local folder.",
    ),
    "no address": ({"HF_ENDPOINT": "nonsense"}, 2, "HF_ENDPOINT is 'nonsense', which is no address. Unset it"),
    "half an address": ({"HF_ENDPOINT": "http://["}, 2, "HF_ENDPOINT is 'http://[', which is no address. Unset it"),
    "odd proxy": ({"HTTP_PROXY": "foo://x"}, 3, "Check HF_ENDPOINT, your proxy and your network"),
    "foreign letters": ({"HF_TOKEN": "hf_ä"}, 2, "Your token for the Hub holds characters that no token has."),
}


NOWHERE = {"HF_ENDPOINT": "http://hub.invalid"}


def run(environment: Mapping[str, str], *arguments: object) -> Done:
    """A new process, because the Hub's client reads the environment when it is imported."""
    env = {**os.environ, "NO_PROXY": "", **environment}
    command = [sys.executable, "-m", "phard_hub", *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(("environment", "code", "words"), CASES.values(), ids=CASES)
def test_a_model_that_cannot_be_asked_for(environment: dict[str, str], code: int, words: str, tmp_path: Path) -> None:
    done = run({**NOWHERE, **environment, "HF_HOME": str(tmp_path)}, "audit", "org/model")
    assert done.code == code
    assert words in done.complaint
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("case", ["offline", "no proxy there"])
def test_images_that_cannot_be_asked_for(case: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    environment, code, words = CASES[case]
    done = run({**NOWHERE, **environment, "HF_HOME": str(tmp_path)}, "measure", tiny_checkpoint, "--images", "org/data")
    assert done.code == code
    assert words in done.complaint
    assert done.err.count("\n") == 1


def test_a_cache_that_cannot_be_made_is_not_blamed_on_the_images(hub: Hub, tiny_checkpoint: Path) -> None:
    hub.create("org/data", {"train/cat/1.png": b"x", "train/dog/1.png": b"x"}, kind="datasets")
    place = {"HF_HOME": "/proc/nothing", "HF_HUB_CACHE": "/proc/nothing/hub", "HF_DATASETS_CACHE": "/proc/nothing/d"}
    done = run({**place, "NO_PROXY": "*"}, "measure", tiny_checkpoint, "--images", "org/data")
    assert done.code == 2
    assert "Cannot read org/data or cache it in /proc/nothing" in done.complaint
    assert "set HF_HOME to a folder that can be written" in done.complaint
