"""A release on the Hub as the gate sees it: its report, and the hashes that the Hub states for the files of one commit.

Weights are not downloaded: the Hub keeps them by their sha256. What it keeps otherwise is small and read.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import model_info, snapshot_download
from huggingface_hub.hf_api import RepoSibling

from phard_hub.errors import RepoError
from phard_hub.hub.client import ready_client
from phard_hub.hub.download import TIMEOUT, check_name, hash_on_hub, in_one_line, verify_hashes
from phard_hub.hub.listing import commit_of, listed
from phard_hub.hub.names import split_revision
from phard_hub.hub.refusals import ask, nonsense
from phard_hub.hub.snapshot import LARGEST_JSON
from phard_hub.release.signing import LARGEST_SIGNATURE, checked
from phard_hub.report.deployed import SIGNATURE_NAME, Deployed, is_signed
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME, Report

_READ = {REPORT_NAME: 64 * 2**20, SIGNATURE_NAME: LARGEST_SIGNATURE}
"""What is read however the Hub keeps it, and how many bytes it may have; other small files may have `LARGEST_JSON`."""


def published(name: str, policy: Policy) -> tuple[Report, Deployed]:
    """Read the report of a release on the Hub, and look at what lies beside it, all at one commit.

    Args:
        name: the Hub id with its revision, as ``org/model@revision``.
        policy: names the public key, if a signature is asked for.

    Raises:
        RepoError: there is no such repository or revision, it is not accessible, or it has no report.
        ReportError: the report is none.
        InputError: the policy's key is none.
        HubUnavailableError: the Hub did not answer.
    """
    repo, revision = split_revision(name)
    check_name(repo, revision)
    ready_client()
    with in_one_line(repo, revision):
        info = ask(repo, lambda: model_info(repo, revision=revision, timeout=TIMEOUT, files_metadata=True))
        commit, files = commit_of(repo, info), listed(repo, info)
        if REPORT_NAME not in files:
            advice = "Give a release that `phard push` sent."
            raise RepoError(f"{repo} at {commit[:12]} has no {REPORT_NAME}.", advice=advice)
        hashes = {path: file.lfs.sha256 for path, file in files.items() if file.lfs and is_signed(path)}
        read = {path: file for path, file in files.items() if path in _READ or (is_signed(path) and path not in hashes)}
        unreadable = dict(_too_large(repo, read))
        if why := unreadable.get(REPORT_NAME):
            raise RepoError(f"{REPORT_NAME} of {repo} cannot be read: {why}.", advice="Push the release again.")
        folder = _brought(repo, commit, {path: read[path] for path in read.keys() - unreadable.keys()})
    contents = {path: (folder / path).read_bytes() for path in read.keys() - unreadable.keys()}
    hashes |= {path: hashlib.sha256(content).hexdigest() for path, content in contents.items() if is_signed(path)}
    deployed = Deployed(
        place=f"{repo}@{commit}",
        files=hashes,
        others=tuple(path for path in files if path not in (*read, *hashes)),
        unreadable={path: why for path, why in unreadable.items() if path != SIGNATURE_NAME},
    )
    problem = f"{SIGNATURE_NAME} cannot be read: {why}" if (why := unreadable.get(SIGNATURE_NAME)) else ""
    report = Report.read(folder / REPORT_NAME)
    return report, checked(deployed, contents.get(SIGNATURE_NAME), policy, problem=problem)


def _too_large(repo: str, files: Mapping[str, RepoSibling]) -> Iterator[tuple[str, str]]:
    """(path, why) of each file that is too large to be what its name says; no byte was asked for yet."""
    for path, file in files.items():
        if file.size is None or not hash_on_hub(file):
            raise nonsense(repo, f"{path} has no size or no hash")
        if file.size > _READ.get(path, LARGEST_JSON):
            yield path, f"it has {file.size / 1e6:.0f} MB"


def _brought(repo: str, commit: str, files: Mapping[str, RepoSibling]) -> Path:
    """A folder of the cache with these files, which have the hashes that the Hub states."""
    patterns = [glob.escape(path) for path in files]
    folder = Path(ask(repo, lambda: snapshot_download(repo, revision=commit, allow_patterns=patterns)))
    verify_hashes(repo, commit, folder, {path: hash_on_hub(file) for path, file in files.items()})
    return folder
