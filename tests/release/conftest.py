"""Shared by the tests of releases: two of them, keys of all kinds, and a policy that asks for a signature."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from phard_hub.release.signing import sign
from tests.hub.conftest import files, impatient
from tests.release.releases import make_release

__all__ = ["files", "impatient"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that passes the gate; do not change it."""
    return make_release(tmp_path_factory.mktemp("releases") / "hardened")


@pytest.fixture(scope="module")
def other_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights, and no picture of triggers."""
    return make_release(tmp_path_factory.mktemp("releases") / "hardened", seed=1, gallery=False)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs ``NAME.pem`` and ``NAME.pub``, and what is no key; do not change it."""
    from cryptography.hazmat.primitives import serialization as form  # comes with the extra
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    pem, pkcs8 = form.Encoding.PEM, form.PrivateFormat.PKCS8
    folder = tmp_path_factory.mktemp("keys")
    pairs: dict[str, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey] = {
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "p521": ec.generate_private_key(ec.SECP521R1()),
        "other": ec.generate_private_key(ec.SECP256R1()),
        "bitcoin": ec.generate_private_key(ec.SECP256K1()),
        "rsa": rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }
    for name, key in pairs.items():
        (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, pkcs8, form.NoEncryption()))
        public = key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
    locked = pairs["p256"].private_bytes(pem, pkcs8, form.BestAvailableEncryption(b"secret"))
    (folder / "locked.pem").write_bytes(locked)
    (folder / "empty").write_bytes(b"")
    (folder / "large").write_bytes(b"\0" * 2**20)
    (folder / "folder").mkdir()
    for name in ("p256", "other", "rsa"):
        (folder / f"{name}.toml").write_text(f'require_signature = "{name}.pub"\n')
    (folder / "missing.toml").write_text('require_signature = "nothing.pub"\n')
    return folder


@pytest.fixture
def signed(release: Path, keys: Path, tmp_path: Path) -> Path:
    """A release with a signature by the key ``p256``; it may be changed."""
    folder = shutil.copytree(release, tmp_path / "release")
    (folder / "LICENSE").write_text("MIT")
    sign(folder, keys / "p256.pem")
    return folder
