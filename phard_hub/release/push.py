"""Push a release to the Hub: as one commit or one pull request, or not at all.

`plan` only reads: it checks the release, asks the gate, looks at the repository and says what would be
sent. `send` sends it, as one commit on top of the one that was looked at. So card, report and weights in
a repository are always of one release, nobody's work is written over, and what failed left nothing.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]
from huggingface_hub.utils.sha import git_hash

from phard_hub.errors import (
    ConflictError,
    HubUnavailableError,
    InputError,
    NotEvaluatedError,
    RefusedError,
    ReportError,
    first_line,
)
from phard_hub.hub.metadata import visible
from phard_hub.hub.names import is_commit, is_repo_id
from phard_hub.hub.refusals import nonsense, one_line, persist, status_of, understood
from phard_hub.hub.target import Kind, Target, card_at, enter, look, own_pull_requests
from phard_hub.release.card import PLOTS, escape
from phard_hub.release.public import public
from phard_hub.release.release import Release, read_release
from phard_hub.report.deployed import CARD_NAME, SIGNATURE_NAME, WEIGHTS_NAME
from phard_hub.report.gate import Verdict
from phard_hub.report.policy import Policy
from phard_hub.report.record import REPORT_NAME
from phard_hub.report.views.formats import headline, summary_rows

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".tflite")
# Where the Hub reads results of evaluations from, and shows them on the page of the model.
_RESULTS = re.compile(r"\.eval_results/.*\.ya?ml", re.IGNORECASE)
_LOOK_AGAIN = "Push again: it will then be merged into what is there now."


@dataclass(frozen=True)
class Content:
    """What is to lie under one path."""

    data: bytes | Path
    size: int
    sha256: str

    def is_there(self, file: RepoSibling | None) -> bool:
        """Whether the Hub has it already."""
        if file is None:
            return False
        if file.lfs is not None:
            return file.lfs.sha256 == self.sha256
        return isinstance(self.data, bytes) and file.blob_id == git_hash(self.data)


@dataclass(frozen=True)
class Change:
    """What a push would do to one file; ``size`` in bytes."""

    path: str
    kind: Literal["new", "changed", "unchanged", "deleted"]
    size: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a push would do.

    Attributes:
        target: where to, and what is there now.
        user: who pushes.
        contents: everything that is to be there, by path.
        card_before: the text of the target's README.md; empty if it has none.
        verdict: what the policy says.
        no_gate: why the gate is not asked; None if it is.
        space: the Space that the card links to; None for none.
        pull_request: whether to open a new pull request.
        private: whether a repository that has to be made is private.
        title: of the commit and of the pull request; says which release it is.
        description: the numbers.
    """

    target: Target
    user: str
    contents: Mapping[str, Content]
    card_before: str
    verdict: Verdict
    no_gate: str | None
    space: str | None
    pull_request: bool
    private: bool
    title: str
    description: str

    @property
    def changes(self) -> tuple[Change, ...]:
        """What happens to each file, in the order of the paths."""
        found = [Change(path, self._kind(path), content.size) for path, content in self.contents.items()]
        gone = [Change(path, "deleted", 0) for path in self._outdated()]
        return tuple(sorted([*found, *gone], key=lambda change: change.path))

    def _outdated(self) -> Iterator[str]:
        """Files about what is no longer there: plots and signature of a former push, and results of other weights."""
        other = WEIGHTS_NAME in self.contents and self._kind(WEIGHTS_NAME) != "unchanged"
        for path in self.target.files:
            if path not in self.contents and (path in (*PLOTS, SIGNATURE_NAME) or (other and _RESULTS.fullmatch(path))):
                yield path

    def _kind(self, path: str) -> Literal["new", "changed", "unchanged"]:
        there = self.target.files.get(path)
        return "unchanged" if self.contents[path].is_there(there) else "changed" if there else "new"

    @property
    def other_weights(self) -> tuple[str, ...]:
        """Files that stay, though they hold weights of another model: those are the owner's to delete."""
        names = (path for path in self.target.files if path not in self.contents)
        return tuple(sorted(name for name in names if name.endswith(_WEIGHTS)))

    @property
    def is_done(self) -> bool:
        """Whether the target holds all of this already."""
        return all(change.kind == "unchanged" for change in self.changes)

    @property
    def card_diff(self) -> str:
        """What happens to the card, as a unified diff that a terminal can show."""
        after = self.contents[CARD_NAME].data
        assert isinstance(after, bytes)
        before = visible(self.card_before, instead="\ufffd")
        lines = (before.splitlines(keepends=True), after.decode().splitlines(keepends=True))
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in difflib.unified_diff(*lines, n=1))


@dataclass(frozen=True)
class Pushed:
    """Where the release is now; ``sent`` is False if it was there before."""

    url: str
    commit: str
    sent: bool


def push(
    folder: Path,
    repo: str,
    *,
    policy: Policy | None = None,
    pr: bool = False,
    private: bool = False,
    no_gate: str | None = None,
    space: str | None = None,
) -> Pushed:
    """Push a release to the Hub as one commit; `plan` and `send` in one call, with their arguments and errors."""
    return send(plan(folder, repo, policy=policy, pr=pr, private=private, no_gate=no_gate, space=space))


def plan(
    folder: Path,
    repo: str,
    *,
    policy: Policy | None = None,
    pr: bool = False,
    private: bool = False,
    no_gate: str | None = None,
    space: str | None = None,
) -> Plan:
    """Say what a push would do; changes nothing on the Hub.

    Args:
        folder: the release folder.
        repo: id of the repository to push to; it is made if it does not exist.
        policy: what the gate asks for.
        pr: open a pull request instead of a commit. A release that has an open pull request gets no second one.
        private: make the repository private, if it has to be made.
        no_gate: a reason to publish whatever the gate says; the card prints it.
        space: id of the Space with the web page, to which the card links; see `phard_hub.release.space`.

    Raises:
        InputError: there is no reason given, or ``space`` is no id.
        ReportError: the folder is no release, or its report is about other weights.
        CheckpointError: the release's config or image processor was changed.
        RepoError: there is no such repository or namespace.
        OutputError: you may not write there, or the card there cannot be merged with ours.
        HubUnavailableError: the Hub did not answer.
    """
    if no_gate is not None and not no_gate.strip():
        raise InputError("There is no reason given for not asking the gate.", advice="Give one; the card prints it.")
    if space is not None and not is_repo_id(space, owner=True):
        raise InputError(f"{space!r} is no id of a Space on the Hub.", advice="Give it as owner/name.")
    release = read_release(folder)
    verdict = release.verdict(policy)
    with one_line(repo):
        api = HfApi()
        user, target = enter(api, repo, pr=pr, private=private)
        draft = Plan(
            target=target,
            user=user,
            contents={},
            card_before="",
            verdict=verdict,
            no_gate=no_gate,
            space=space,
            pull_request=pr,
            private=private,
            title=_title(release),
            description=_description(release, verdict, no_gate),
        )
        planned = _filled(api, draft, release)
        if pr and not planned.is_done:
            for found in own_pull_requests(api, repo, user=user, title=draft.title):
                planned = _filled(api, replace(draft, target=found, pull_request=False), release)
        return planned


def check_access(repo: str, *, pr: bool = False, private: bool = False) -> None:
    """Find out before long work whether a push could be done; the errors are those of `plan`."""
    with one_line(repo):
        enter(HfApi(), repo, pr=pr, private=private)


def send(plan: Plan) -> Pushed:
    """Do what was planned, or nothing at all.

    Tries again when the Hub is busy or its answer got lost. A repository that was made for this push and
    stayed empty is removed when the push fails.

    Raises:
        RefusedError: the policy refuses the model.
        NotEvaluatedError: the policy could not be evaluated.
        ConflictError: the repository changed after it was looked at.
        OutputError: the Hub refused: permission, space, or an invalid card.
        HubUnavailableError: the Hub did not answer.
    """
    if plan.no_gate is None and not plan.verdict.passed:
        error = RefusedError if plan.verdict.having("fail") else NotEvaluatedError
        advice = "See `phard gate`; a release can be pushed all the same with a reason (--no-gate)."
        raise error(f"Nothing was pushed to {plan.target.repo}. {headline(plan.verdict)}", advice=advice)
    if plan.is_done:
        return Pushed(plan.target.url, plan.target.commit or "", sent=False)
    api = HfApi()
    with one_line(plan.target.repo):
        if plan.target.commit is not None:
            return _commit(api, plan)
        with new_repository(api, plan.target.repo, private=plan.private) as target:
            return _commit(api, replace(plan, target=target))


# Planning


def _filled(api: HfApi, draft: Plan, release: Release) -> Plan:
    """The plan with the files for its target, the card merged into the one that is there."""
    there = card_at(api, draft.target)
    card = release.card(
        draft.verdict, model_name=draft.target.repo, target_card=there, no_gate=draft.no_gate, space=draft.space
    )
    contents = {path: _content(release, path) for path in release.files if path != CARD_NAME}
    contents[CARD_NAME] = content_of(card.encode())
    return replace(draft, contents=contents, card_before=there or "")


def _content(release: Release, path: str) -> Content:
    if path == REPORT_NAME and (published := public(release.report)) != release.report:
        if SIGNATURE_NAME in release.files:
            problem = f"{release.folder} is signed, but its report names local paths, which are not published."
            raise ReportError(problem, advice="Write the release again with `phard harden`, and sign it then.")
        return content_of(published.to_json().encode())
    if path != WEIGHTS_NAME:
        return content_of(release.read(path))
    state = release.report.after or release.report.before
    return Content(release.files[path], release.files[path].stat().st_size, state.weights_sha256)


def content_of(data: bytes) -> Content:
    """Bytes that are to lie under a path."""
    return Content(data, len(data), hashlib.sha256(data).hexdigest())


def _title(release: Release) -> str:
    state, verb = release.report.after or release.report.before, "Harden" if release.report.after else "Measure"
    return f"{verb} against pervasive backdoors: weights {state.weights_sha256[:12]}"


def _description(release: Release, verdict: Verdict, no_gate: str | None) -> str:
    """The numbers as Markdown, for those who decide on a pull request."""
    rows = [
        f"| {escape(row.metric)} | {escape(row.before)} | {escape(row.after)} |" for row in summary_rows(release.report)
    ]
    asked = [] if no_gate is None else ["", f"The gate was not asked: {escape(no_gate, 500)}"]
    return "\n".join([headline(verdict), *asked, "", "| | before | after |", "|---|---|---|", *rows])


# Sending


@contextmanager
def new_repository(api: HfApi, repo: str, *, private: bool, kind: Kind = "model") -> Iterator[Target]:
    """Make a repository, and remove it if what is done with it fails.

    Raises:
        ConflictError: somebody else made it meanwhile.
        HubUnavailableError: what was done failed, and so did removing it.
    """
    sdk = "gradio" if kind == "space" else None

    def make() -> Target:
        try:
            with understood(repo):
                api.create_repo(repo, private=private or None, repo_type=kind, space_sdk=sdk)
        except HfHubHTTPError as error:
            if status_of(error) != 409:
                raise
            raise ConflictError(f"{repo} was made by somebody else meanwhile.", advice=_LOOK_AGAIN) from error
        return look(api, repo, kind=kind)

    def made() -> Target | None:
        there = look(api, repo, kind=kind)
        return there if there.commit else None

    target = persist(make, made)
    try:
        yield target
    except BaseException as error:
        if not _removed(api, target, kind):
            problem = f"The push failed and left the new, empty repository {repo} behind: {first_line(error)}."
            raise HubUnavailableError(problem, advice="Push again, or delete it on the Hub.") from error
        raise


def _removed(api: HfApi, target: Target, kind: Kind) -> bool:
    """Delete a repository that was just made, unless something is in it; whether there is no empty one now."""
    try:
        if look(api, target.repo, kind=kind).commit == target.commit:
            api.delete_repo(target.repo, repo_type=kind, missing_ok=True)
    except (HfHubHTTPError, httpx.HTTPError, HubUnavailableError):
        return False
    return True


def _commit(api: HfApi, plan: Plan) -> Pushed:
    """Send everything that is new as one commit or pull request."""
    target = plan.target

    def attempt() -> Pushed:
        try:
            operations = _operations(plan)
            with understood(target.repo):
                info = api.create_commit(
                    target.repo,
                    operations,
                    commit_message=plan.title,
                    commit_description=plan.description,
                    revision=target.revision,
                    parent_commit=target.commit,
                    create_pr=plan.pull_request,
                )
        except HfHubHTTPError as error:
            if status_of(error) != 412:
                raise
            if (found := arrived()) is not None:
                return found
            problem = f"{target.repo} has changed since it was looked at; nothing was written over."
            raise ConflictError(problem, advice=_LOOK_AGAIN) from error
        if not is_commit(info.oid):
            raise nonsense(target.repo, "the new commit is no commit")
        url = f"{target.url}/discussions/{info.pr_num}" if plan.pull_request and info.pr_num else target.url
        return Pushed(url, info.oid, sent=True)

    def arrived() -> Pushed | None:
        if plan.pull_request:
            places = own_pull_requests(api, target.repo, user=plan.user, title=plan.title)
        else:
            places = [look(api, target.repo, target.revision, target.url)]
        there = [place for place in places if replace(plan, target=place).is_done]
        return Pushed(there[0].url, there[0].commit or "", sent=True) if there else None

    return persist(attempt, arrived)


def _operations(plan: Plan) -> list[CommitOperationAdd | CommitOperationDelete]:
    """The commit's operations; files are hashed again as they are now."""
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for change in plan.changes:
        if change.kind == "deleted":
            operations.append(CommitOperationDelete(change.path))
        elif change.kind != "unchanged":
            content = plan.contents[change.path]
            addition = CommitOperationAdd(change.path, content.data)
            if addition.upload_info.sha256.hex() != content.sha256:
                raise ReportError(f"{change.path} changed while it was pushed.", advice="Push again.")
            operations.append(addition)
    return operations
