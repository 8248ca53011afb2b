"""Signatures: what they cover, by which keys, and what is none."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phard_hub.errors import RefusedError
from phard_hub.release.signing import sign, verify
from phard_hub.report.deployed import SIGNATURE_NAME
from tests.command import Phard
from tests.report_factory import make_rate

pytest.importorskip("model_signing", reason="NO SIGNATURES: install phard-hub[sign]")

COVERED = "LICENSE, config.json, model.safetensors, phard_report.json, preprocessor_config.json"


@pytest.mark.parametrize("name", ["p256", "p384", "p521"])
def test_what_was_signed_is_verified(name: str, release: Path, keys: Path, tmp_path: Path, phard: Phard) -> None:
    folder = shutil.copytree(release, tmp_path / "release")
    done = phard("sign", folder, "--key", keys / f"{name}.pem")
    assert (done.code, done.out, done.err) == (0, f"Signed: {folder / SIGNATURE_NAME}\n", "")
    done = phard("verify", folder, "--key", keys / f"{name}.pub")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("for config.json, model.safetensors, phard_report.json, preprocessor_config.json\n")


def test_the_key_is_named_as_openssl_names_it(signed: Path, keys: Path) -> None:
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", keys / "p256.pub", "-outform", "DER"], capture_output=True, check=True
    )
    digest = subprocess.run(["sha256sum"], input=der.stdout, capture_output=True, check=True).stdout.decode()
    assert f"by key {digest[:12]}, for {COVERED}" in verify(signed, keys / "p256.pub")


def by_the_library(*arguments: object) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, arguments)], capture_output=True, check=False
    )
    return done.returncode


def test_the_library_alone_says_the_same(signed: Path, keys: Path) -> None:
    given = ("verify", "key", signed, "--signature", signed / SIGNATURE_NAME, "--public_key")
    assert by_the_library(*given, keys / "p256.pub") == 0
    assert by_the_library(*given, keys / "other.pub") != 0
    (signed / "config.json").write_text("{}")
    assert by_the_library(*given, keys / "p256.pub") != 0


def sign_by_the_library(folder: Path, keys: Path, *left_out: str) -> None:
    ignored = [word for name in ("README.md", "plots", *left_out) for word in ("--ignore-paths", folder / name)]
    given = ("--signature", folder / SIGNATURE_NAME, "--private_key", keys / "p256.pem")
    assert by_the_library("sign", "key", folder, *given, *ignored) == 0


def test_signatures_of_the_library_hold_if_they_cover_all(signed: Path, keys: Path) -> None:
    (signed / SIGNATURE_NAME).unlink()
    sign_by_the_library(signed, keys)
    assert COVERED in verify(signed, keys / "p256.pub")


# What does not hold


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change the JSON of a signature."""

    def do(folder: Path) -> None:
        bundle = json.loads((folder / SIGNATURE_NAME).read_text())
        change(bundle)
        (folder / SIGNATURE_NAME).write_text(json.dumps(bundle))

    return do


def payload(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change what a signature is about, and not the signature itself."""

    def do(bundle: dict[str, Any]) -> None:
        told = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(told)
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(told).encode()).decode()

    return edit(do)


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return do


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def link(name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return do


def fifo(name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return do


def folder_as_signature(folder: Path) -> None:
    (folder / SIGNATURE_NAME).unlink()
    (folder / SIGNATURE_NAME).mkdir()


def cut(folder: Path) -> None:
    content = (folder / SIGNATURE_NAME).read_bytes()
    (folder / SIGNATURE_NAME).write_bytes(content[: len(content) // 2])


def better_report(folder: Path) -> None:
    report = json.loads((folder / "phard_report.json").read_text())
    report["after"]["evaluation"]["accuracy"] = make_rate(0.93).model_dump()
    (folder / "phard_report.json").write_text(json.dumps(report))


def without_hint(bundle: dict[str, Any]) -> None:
    del bundle["verificationMaterial"]["publicKey"]["hint"]


def first_file_only(told: dict[str, Any]) -> None:
    del told["predicate"]["resources"][1:]


def wrong_digest(told: dict[str, Any]) -> None:
    told["predicate"]["resources"][0]["digest"] = "0" * 64


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no signature": (drop(SIGNATURE_NAME), "there is no model.sig"),
    "other weights": (put("model.safetensors", b"\0" * 99), "Hash mismatch for 'model.safetensors'"),
    "a better report": (better_report, "Hash mismatch for 'phard_report.json'"),
    "another config": (put("config.json", b"{}"), "Hash mismatch for 'config.json'"),
    "another processor": (put("preprocessor_config.json", b"{}"), "Hash mismatch for 'preprocessor_config.json'"),
    "a second processor": (put("processor_config.json", b"{}"), "Extra files found"),
    "another licence": (put("LICENSE", b"mine"), "Hash mismatch for 'LICENSE'"),
    "a notice": (put("NOTICE", b"mine"), "Extra files found"),
    "no processor": (drop("preprocessor_config.json"), "Missing files"),
    "no weights": (drop("model.safetensors"), "Missing files"),
    "a link to the weights": (link("model.safetensors"), "Missing files"),
    "a FIFO as config": (fifo("config.json"), "Missing files"),
    "a link as signature": (link(SIGNATURE_NAME), "model.sig cannot be read: it is a link"),
    "a FIFO as signature": (fifo(SIGNATURE_NAME), "model.sig cannot be read: it is no regular file"),
    "a folder as signature": (folder_as_signature, "model.sig cannot be read: it is no regular file"),
    "a huge signature": (put(SIGNATURE_NAME, b" " * (2**20 + 1)), "it has more than 1.05 MB"),
    "an empty signature": (put(SIGNATURE_NAME, b""), "model.sig is broken"),
    "half a signature": (cut, "model.sig is broken"),
    "no text": (put(SIGNATURE_NAME, b"\xff\xfe\0"), "model.sig is broken"),
    "no object": (put(SIGNATURE_NAME, b"[]"), "model.sig is broken"),
    "a deep signature": (put(SIGNATURE_NAME, b"[" * 500_000), "model.sig is broken"),
    "no signatures": (edit(lambda bundle: bundle["dsseEnvelope"]["signatures"].clear()), "model.sig is broken"),
    "no payload": (edit(lambda bundle: bundle["dsseEnvelope"].update(payload="")), "was not made by this key"),
    "another kind": (edit(lambda bundle: bundle.update(mediaType="x")), "model.sig is broken"),
    "fewer files, forged": (payload(first_file_only), "was not made by this key"),
    "another digest, forged": (payload(wrong_digest), "was not made by this key"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_hold_is_refused(name: str, signed: Path, keys: Path, phard: Phard) -> None:
    change, expected = BROKEN[name]
    change(signed)
    done = phard("verify", signed, "--key", keys / "p256.pub")
    assert (done.code, done.out) == (1, "")
    assert expected in done.complaint
    done = phard("gate", signed, "--policy", keys / "p256.toml")
    assert done.code == 1
    assert "FAIL            require_signature" in done.out


@pytest.mark.parametrize("left_out", ["config.json", "preprocessor_config.json", "phard_report.json", "LICENSE"])
def test_a_signature_over_fewer_files(left_out: str, signed: Path, keys: Path) -> None:
    """Signed with the right key, and only without a file."""
    (signed / SIGNATURE_NAME).unlink()
    sign_by_the_library(signed, keys, left_out)
    with pytest.raises(RefusedError, match=f"Extra files found in model.*{left_out}"):
        verify(signed, keys / "p256.pub")


@pytest.mark.parametrize("hint", [True, False])
def test_another_key(hint: bool, signed: Path, keys: Path, phard: Phard) -> None:
    """Without the hint of its key, too, about which the library prints a warning among our results."""
    if not hint:
        edit(without_hint)(signed)
    done = phard("gate", signed, "--policy", keys / "other.toml", "--format", "json")
    assert done.code == 1
    (rule,) = [rule for rule in json.loads(done.out)["rules"] if rule["name"] == "require_signature"]
    assert rule["message"] == ("model.sig was made by another key" if hint else "model.sig was not made by this key")


def test_the_signature_of_another_release(signed: Path, other_release: Path, keys: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(other_release, tmp_path / "other")
    shutil.copy(signed / SIGNATURE_NAME, folder)
    with pytest.raises(RefusedError, match="is about other files"):
        verify(folder, keys / "p256.pub")


@pytest.mark.parametrize("name", ["README.md", "plots/distances.png", ".gitattributes"])
def test_what_is_for_people_is_not_covered(name: str, signed: Path, keys: Path) -> None:
    (signed / name).write_text("mine")
    assert COVERED in verify(signed, keys / "p256.pub")


@pytest.fixture
def changed(signed: Path) -> tuple[Path, bytes]:
    """A release that was changed after it was signed, and its signature."""
    (signed / "config.json").write_bytes(b"{}")
    return signed, (signed / SIGNATURE_NAME).read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_signature_holds_for_other_files(
    data: st.DataObject, changed: tuple[Path, bytes], keys: Path
) -> None:
    folder, signature = changed
    content = bytearray(signature)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    (folder / SIGNATURE_NAME).write_bytes(content)
    with pytest.raises(RefusedError) as caught:
        verify(folder, keys / "p256.pub")
    assert str(caught.value).isprintable()


# Keys


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("nothing.pem", "Cannot read the private key"),
        ("folder", "it is no regular file"),
        ("empty", "is no private key on the curve"),
        ("large", "it has more than"),
        ("p256.pub", "is no private key on the curve"),
        ("rsa.pem", "is no private key on the curve"),
        ("ed25519.pem", "is no private key on the curve"),
        ("bitcoin.pem", "is no private key on the curve"),
        ("locked.pem", "is protected by a password"),
    ],
)
def test_keys_that_cannot_sign(key: str, expected: str, signed: Path, keys: Path, phard: Phard) -> None:
    before = (signed / SIGNATURE_NAME).read_bytes()
    done = phard("sign", signed, "--key", keys / key)
    assert (done.code, done.out) == (2, "")
    assert expected in done.complaint
    assert (signed / SIGNATURE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("nothing.pub", "Cannot read the public key"),
        ("folder", "it is no regular file"),
        ("empty", "is no public key on the curve"),
        ("large", "it has more than"),
        ("p256.pem", "is no public key on the curve"),
        ("locked.pem", "is no public key on the curve"),
        ("rsa.pub", "is no public key on the curve"),
        ("ed25519.pub", "is no public key on the curve"),
        ("bitcoin.pub", "is no public key on the curve"),
    ],
)
def test_keys_that_cannot_verify(key: str, expected: str, signed: Path, keys: Path, phard: Phard) -> None:
    done = phard("verify", signed, "--key", keys / key)
    assert (done.code, done.out) == (2, "")
    assert expected in done.complaint


@pytest.mark.parametrize("policy", ["rsa", "missing"])
@pytest.mark.parametrize("unsigned", [False, True])
def test_a_policy_with_a_wrong_key(policy: str, unsigned: bool, signed: Path, keys: Path, phard: Phard) -> None:
    if unsigned:
        (signed / SIGNATURE_NAME).unlink()
    done = phard("gate", signed, "--policy", keys / f"{policy}.toml")
    assert done.code == (1 if unsigned else 2)


# What is signed


def test_only_what_a_report_speaks_of_is_signed(signed: Path, keys: Path, phard: Phard) -> None:
    before = (signed / SIGNATURE_NAME).read_bytes()
    for name, expected in [("config.json", "config.json is not the one"), ("model.safetensors", "the weights are ")]:
        kept = (signed / name).read_bytes()
        (signed / name).write_bytes(b"{}")
        done = phard("sign", signed, "--key", keys / "p256.pem")
        assert done.code == 2
        assert expected in done.complaint
        (signed / name).write_bytes(kept)
    (signed / "pytorch_model.bin").write_bytes(b"")
    assert "does not speak of pytorch_model.bin" in phard("sign", signed, "--key", keys / "p256.pem").complaint
    assert (signed / SIGNATURE_NAME).read_bytes() == before


@pytest.mark.parametrize("verb", ["sign", "verify"])
def test_folders_that_are_none(verb: str, keys: Path, tmp_path: Path, phard: Phard) -> None:
    key = keys / ("p256.pem" if verb == "sign" else "p256.pub")
    assert phard(verb, tmp_path / "nothing", "--key", key).code == 2
    (tmp_path / "file").write_bytes(b"")
    assert phard(verb, tmp_path / "file", "--key", key).code == 2
    assert phard(verb, tmp_path, "--key", key).code == (2 if verb == "sign" else 1)


def test_a_link_is_not_written_through(signed: Path, keys: Path, tmp_path: Path, phard: Phard) -> None:
    (tmp_path / "mine").write_text("mine")
    (signed / SIGNATURE_NAME).unlink()
    (signed / SIGNATURE_NAME).symlink_to(tmp_path / "mine")
    assert phard("sign", signed, "--key", keys / "p256.pem").code == 2
    assert (tmp_path / "mine").read_text() == "mine"


def test_signing_again_is_signing_anew(signed: Path, keys: Path) -> None:
    sign(signed, keys / "other.pem")
    assert COVERED in verify(signed, keys / "other.pub")


# The gate


def test_a_gate_that_asks_for_a_signature(signed: Path, keys: Path, phard: Phard) -> None:
    done = phard("gate", signed, "--policy", keys / "p256.toml")
    assert (done.code, done.err) == (0, "")
    assert "PASS            require_signature         model.sig is by key" in done.out
    assert "whoever controls" not in done.out
    assert "model.sig was not checked, as the policy names no key: whoever" in phard("gate", signed).out
    done = phard("gate", signed / "phard_report.json", "--policy", keys / "p256.toml")
    assert done.code == 3
    assert "NOT EVALUATED   require_signature" in done.out


@pytest.mark.parametrize("verb", ["gate", "sign", "verify"])
def test_without_the_extra(verb: str, signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, phard: Phard) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    option = {"gate": ("--policy", "p256.toml"), "sign": ("--key", "p256.pem"), "verify": ("--key", "p256.pub")}[verb]
    done = phard(verb, signed, option[0], keys / option[1])
    assert done.code == 3
    assert "pip install 'phard-hub[sign]'" in done.out + done.err
