"""Signed releases on the Hub: a push sends the signature along, and a gate that asks for one reads it there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phard_hub.errors import RefusedError, ReportError
from phard_hub.release.push import push
from phard_hub.release.signing import sign
from phard_hub.report.deployed import SIGNATURE_NAME
from phard_hub.report.policy import Policy
from phard_hub.report.record import Report
from tests.command import Phard
from tests.hub_server import Hub
from tests.release.releases import OWN_CARD

pytest.importorskip("model_signing", reason="NO SIGNATURES: install phard-hub[sign]")


@pytest.fixture
def asking(keys: Path) -> Policy:
    """A policy that asks for the signature."""
    return Policy.read(keys / "p256.toml")


@pytest.mark.parametrize("there", [False, True])
def test_a_signed_release_is_pushed_and_verified(
    there: bool, hub: Hub, signed: Path, keys: Path, asking: Policy, phard: Phard
) -> None:
    """The signature holds beside a card that was merged with another one, too."""
    hub.login()
    if there:
        hub.create("me/model", {"README.md": OWN_CARD, SIGNATURE_NAME: "old"})
    push(signed, "me/model", policy=asking)
    assert hub.files("me/model")[SIGNATURE_NAME] == (signed / SIGNATURE_NAME).read_bytes()
    done = phard("gate", "me/model@main", "--policy", keys / "p256.toml")
    assert (done.code, done.err) == (0, "")
    assert "PASS            require_signature" in done.out
    assert phard("gate", "me/model@main", "--policy", keys / "other.toml").code == 1
    assert not push(signed, "me/model", policy=asking).sent


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({SIGNATURE_NAME: None}, "there is no model.sig"),
        ({SIGNATURE_NAME: "{}"}, "model.sig is broken"),
        ({SIGNATURE_NAME: b" " * (2**20 + 1)}, "model.sig cannot be read: it has 1 MB"),
        ({"LICENSE": "mine"}, "Hash mismatch for 'LICENSE'"),
        ({"NOTICE": "mine"}, "Extra files found"),
        ({"model.safetensors": b"\0" * 99}, "Hash mismatch for 'model.safetensors'"),
        ({"config.json": None}, "Missing files"),
    ],
)
def test_a_repository_that_was_changed_after_it_was_signed(
    changes: dict[str, bytes | str | None], expected: str, hub: Hub, signed: Path, keys: Path, phard: Phard
) -> None:
    hub.create("me/model", signed)
    hub.commit("me/model", changes)
    done = phard("gate", "me/model@main", "--policy", keys / "p256.toml")
    assert done.code == 1
    assert "FAIL            require_signature" in done.out
    assert expected in done.out


def test_an_unsigned_release_is_not_pushed_where_a_signature_is_asked_for(
    hub: Hub, signed: Path, keys: Path, asking: Policy
) -> None:
    hub.login()
    before = hub.state()
    sign(signed, keys / "other.pem")
    with pytest.raises(RefusedError, match="Nothing was pushed"):
        push(signed, "me/model", policy=asking)
    (signed / SIGNATURE_NAME).unlink()
    with pytest.raises(RefusedError, match="Nothing was pushed"):
        push(signed, "me/model", policy=asking)
    assert hub.state() == before


def test_the_signature_of_a_former_push_does_not_stay(hub: Hub, signed: Path, other_release: Path) -> None:
    hub.login()
    push(signed, "me/model")
    push(other_release, "me/model")
    assert SIGNATURE_NAME not in hub.files("me/model")


def test_a_signed_report_that_cannot_be_published_as_it_is(hub: Hub, signed: Path, keys: Path, tmp_path: Path) -> None:
    """What is published names no local paths, so it is another report than the one that was signed."""
    hub.login()
    folder = shutil.copytree(signed, tmp_path / "local")
    report = Report.read(folder).model_copy(update={"dataset": "/home/me/images"})
    (folder / "phard_report.json").write_text(report.to_json())
    sign(folder, keys / "p256.pem")
    with pytest.raises(ReportError, match="its report names local paths"):
        push(folder, "me/model")


def test_the_card_says_what_the_gate_says(signed: Path, keys: Path, phard: Phard) -> None:
    assert "require_signature" in phard("card", signed, "--policy", keys / "p256.toml").out
    (signed / SIGNATURE_NAME).unlink()
    assert "The policy refuses" in phard("card", signed, "--policy", keys / "p256.toml").out
