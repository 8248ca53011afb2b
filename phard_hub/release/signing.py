"""Signatures of releases, made and verified by Sigstore's `model-signing` with a key pair (elliptic curve, PEM).

The signature is ``model.sig`` in the release, a Sigstore bundle. It covers what machines read of a release: report,
weights, config, image processor and licence (see `phard_hub.report.deployed.is_signed`).

Our own hashes are signed and verified, each of a regular file that was opened once. So a repository on the Hub is
verified by the hashes that the Hub states, like a folder, and no link or FIFO is opened by another library.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phard_hub.disk.atomic import restore, write_bytes
from phard_hub.disk.reading import read_regular
from phard_hub.errors import InputError, NotEvaluatedError, RefusedError, ReportError, first_line
from phard_hub.release.folder import look
from phard_hub.report.deployed import (
    CARD_NAME,
    SIGNATURE_NAME,
    Deployed,
    Signature,
    other_files,
    other_weights,
)
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, Report
from phard_hub.report.wording import printable

if TYPE_CHECKING:
    from model_signing import hashing

LARGEST_SIGNATURE = 2**20
"""Bytes of a signature that are read; that of a release has about four thousand."""
_LARGEST_KEY = 2**16
_INSTALL = "Install it with `pip install 'phard-hub[sign]'`."
_MAKE = "Make a pair with `openssl ecparam -genkey -name prime256v1 -noout` and `openssl ec -pubout`."


def inspect(folder: Path, policy: Policy) -> Deployed:
    """Look at a folder that is about to be deployed, and verify its signature if the policy asks for one.

    Raises:
        InputError: the folder cannot be read, or the policy's key is none.
    """
    found, problem = None, ""
    try:
        found = read_regular(folder, SIGNATURE_NAME, LARGEST_SIGNATURE)
    except FileNotFoundError:
        pass
    except OSError as error:
        problem = f"{SIGNATURE_NAME} cannot be read: {error.strerror}"
    return checked(look(folder), found, policy, problem=problem)


def checked(deployed: Deployed, signature: bytes | None, policy: Policy, *, problem: str = "") -> Deployed:
    """The same with what is to be said of its signature.

    Args:
        deployed: what was found.
        signature: the content of ``model.sig``; None if there is none.
        policy: names the public key, if a signature is asked for.
        problem: why a signature that is there could not be read.

    Raises:
        InputError: the policy's key is none.
    """
    if problem:
        answer = Signature(state="broken", message=problem)
    elif signature is None:
        answer = Signature(state="absent")
    elif policy.require_signature is None:
        answer = Signature(state="unchecked")
    else:
        answer = _verified(signature, deployed, Path(policy.require_signature))
    return deployed.model_copy(update={"signature": answer})


def sign(folder: Path, key: Path) -> Path:
    """Sign a release that is what its report says, and put the signature into its folder.

    Args:
        folder: the release.
        key: private key in PEM, on the curve P-256, P-384 or P-521, without a password.

    Returns:
        The signature, in place of a former one.

    Raises:
        ReportError: the folder is no release, or not what its report says.
        InputError: the key is none.
        NotEvaluatedError: model-signing is not installed.
        OutputError: the signature cannot be written.
    """
    restore(folder)
    deployed = look(folder)
    _require_whole(folder, deployed)
    with _library("sign it"):
        from model_signing import signing
    with _own_output(), tempfile.TemporaryDirectory(prefix="phard-sign-") as place:
        made = Path(place, SIGNATURE_NAME)
        with _key_errors(key, "private"):
            read_key(key)  # or the library would read a device without end
            signer = signing.Config().use_elliptic_key_signer(private_key=key)
        signer.set_hashing_config(_hashes(deployed.files)).sign(folder.resolve(), made)
        write_bytes(folder / SIGNATURE_NAME, made.read_bytes())
    return folder / SIGNATURE_NAME


def verify(folder: Path, key: Path) -> str:
    """Verify that a release is what was signed, and that the key is the one it was signed by.

    Returns:
        What was verified, in one line.

    Raises:
        RefusedError: there is no signature, or it does not hold.
        InputError: the folder cannot be read, or the key is none.
        NotEvaluatedError: model-signing is not installed.
    """
    restore(folder)
    answer = inspect(folder, Policy(require_signature=str(key))).signature
    if answer.state == "holds":
        return answer.message
    if answer.state == "not_evaluated":
        raise NotEvaluatedError(f"{folder} could not be verified: {answer.message}.")
    why = answer.message or f"there is no {SIGNATURE_NAME}"
    raise RefusedError(f"{folder} is not what was signed: {why}.", advice="Do not deploy it.")


def _require_whole(folder: Path, deployed: Deployed) -> None:
    """Nobody should sign what nobody measured."""
    if why := deployed.unreadable.get(REPORT_NAME):
        raise ReportError(f"Cannot read {folder / REPORT_NAME}: {why}.", advice="Give a folder that `harden` wrote.")
    report = Report.read(folder / REPORT_NAME)
    fault = other_weights(deployed, report, report.after or report.before) or other_files(deployed, report)
    if fault:
        advice = "Sign a folder as `phard harden` wrote it, with nothing else in it."
        raise ReportError(f"{folder} is not what its report says, so it was not signed: {fault}.", advice=advice)


def _verified(signature: bytes, deployed: Deployed, key: Path) -> Signature:
    try:
        with _library("verify it"):
            from model_signing import verifying
    except NotEvaluatedError as error:
        return Signature(state="not_evaluated", message=str(error).rstrip("."))
    with _own_output(), tempfile.TemporaryDirectory(prefix="phard-sign-") as place:
        with _key_errors(key, "public"):
            public = Path(place, "key.pem")
            public.write_bytes(read_key(key))
            verifier = verifying.Config().use_elliptic_key_verifier(public_key=public)
            name = _fingerprint(public)
        Path(place, SIGNATURE_NAME).write_bytes(signature)
        try:
            verifier.set_hashing_config(_hashes(deployed.files)).verify(Path(place), Path(place, SIGNATURE_NAME))
        except Exception as error:  # noqa: BLE001 - whatever the library stumbles over, it is no signature that holds
            return Signature(state="broken", message=_fault(error))
    return Signature(
        state="holds", message=f"{SIGNATURE_NAME} is by key {name}, for {', '.join(sorted(deployed.files))}"
    )


def _fault(error: Exception) -> str:
    """Why a signature does not hold, from what the library says."""
    said = first_line(error)
    if type(error).__name__ == "InvalidSignature":
        return f"{SIGNATURE_NAME} was not made by this key"
    if said.startswith("Key mismatch"):
        return f"{SIGNATURE_NAME} was made by another key"
    if said.startswith("Signature mismatch: "):
        # The library shows the bytes of both hashes, and escapes its quotes where these hold one.
        differences = re.sub(r": Expected .*?(?=Hash mismatch|$)", "; ", said.replace("\\'", "'"))
        differences = differences.removeprefix("Signature mismatch: [").strip('; ]"').removeprefix("'")
        return printable(f"{SIGNATURE_NAME} is about other files: {differences}", 200)
    return printable(f"{SIGNATURE_NAME} is broken: {type(error).__name__}: {said}", 200)


def read_key(path: Path) -> bytes:
    """The bytes of a key; who names one may name a link.

    Raises:
        OSError: it cannot be read, is no regular file, or is far larger than any key.
    """
    place = path.resolve()
    return read_regular(place.parent, place.name, _LARGEST_KEY)


def _fingerprint(public: Path) -> str:
    """The first digits of what ``openssl pkey -pubin -outform DER | sha256sum`` says."""
    import hashlib

    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_public_key(public.read_bytes())
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:12]


@contextmanager
def _key_errors(path: Path, kind: str) -> Iterator[None]:
    """Say in one line why a key cannot be used."""
    try:
        yield
    except OSError as error:
        raise InputError(f"Cannot read the {kind} key {path}: {error.strerror}.", advice=_MAKE) from error
    except TypeError as error:
        problem = f"The {kind} key {path} is protected by a password."
        raise InputError(problem, advice="Decrypt it for the moment with `openssl ec -in KEY -out PLAIN`.") from error
    except Exception as error:  # whatever the library stumbles over
        said = printable(first_line(error), 120)
        problem = f"{path} is no {kind} key on the curve P-256, P-384 or P-521 in PEM ({said})."
        raise InputError(problem, advice=_MAKE) from error


@contextmanager
def _library(purpose: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise NotEvaluatedError(f"model-signing is needed to {purpose} ({error}).", advice=_INSTALL) from error


@contextmanager
def _own_output() -> Iterator[None]:
    """The library prints its warnings among our results, which other programs read."""
    with redirect_stdout(sys.stderr):
        yield


def _hashes(files: Mapping[str, str]) -> hashing.Config:
    """What the library asks for the hashes of a folder's files, answered by those that we have."""
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    # Other programs that verify the signature look at the folder themselves, and learn here what it is not about.
    method = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    kind = manifest.SerializationType.from_args({**method, "ignore_paths": [CARD_NAME, "plots", SIGNATURE_NAME]})
    items = [kind.new_item(name, Digest("sha256", bytes.fromhex(found))) for name, found in files.items()]

    class Known(hashing.Config):
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> manifest.Manifest:  # noqa: ANN401, ARG002
            return manifest.Manifest(Path(model_path).name, items, kind)

    return Known()  # type: ignore[no-untyped-call]
