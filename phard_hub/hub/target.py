"""A repository on the Hub as a push finds it: what is there, who may write, and which pull requests are open.

Whatever the Hub answers is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling

from phard_hub.errors import OutputError, RepoError, first_line
from phard_hub.hub.client import ready_client
from phard_hub.hub.listing import commit_of, listed
from phard_hub.hub.metadata import LARGEST_CARD, read_metadata
from phard_hub.hub.names import is_repo_id
from phard_hub.hub.refusals import LOG_IN, ask, nonsense, status_of
from phard_hub.report.deployed import CARD_NAME

MAIN = "main"
Kind = Literal["model", "space"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A repository at the commit that was looked at.

    Attributes:
        repo: its id.
        commit: None if there is no such repository yet.
        revision: the branch, or the reference of an open pull request, that names the commit.
        url: the page of the repository or of the pull request.
        files: what is there, by path.
        private: whether only few may see it.
    """

    repo: str
    commit: str | None
    revision: str
    url: str
    files: Mapping[str, RepoSibling]
    private: bool = False


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whose token this is: the user's name, all names that the user may make repositories under, and no writing."""

    name: str
    owners: frozenset[str]
    reads_only: bool


def enter(api: HfApi, repo: str, *, pr: bool, private: bool, kind: Kind = "model") -> tuple[str, Target]:
    """The name of who pushes, and the head of the repository.

    Raises:
        RepoError: there is no such repository or namespace.
        OutputError: this user may not write there, or not in this way.
    """
    if not is_repo_id(repo, owner=True):
        raise RepoError(f"{repo!r} is no id of a {kind} on the Hub.", advice="Give it as owner/name.")
    ready_client()
    account = ask("your account", lambda: _account(api.whoami()))
    if account.reads_only:
        raise OutputError("Your token may only read.", advice=LOG_IN)
    target = look(api, repo, kind=kind)
    if target.commit is None:
        _require_namespace(repo, account, pr=pr)
    elif not pr:
        _require_write(api, repo, kind)
    if private and target.commit is not None and not target.private:
        raise OutputError(f"{repo} is public already.", advice="Leave out --private, or give another name.")
    return account.name, target


def _account(said: Any) -> Account:  # noqa: ANN401 - whatever the Hub says
    names = [said["name"], *(org["name"] for org in said.get("orgs") or ())]
    if not all(is_repo_id(name) for name in names):
        raise nonsense("your account", "it has a name that nobody can have")
    token = (said.get("auth") or {}).get("accessToken") or {}
    return Account(name=names[0], owners=frozenset(names), reads_only=token.get("role") == "read")


def _require_namespace(repo: str, account: Account, *, pr: bool) -> None:
    owner, name = repo.split("/")
    if pr:
        problem = f"There is no model {repo} on the Hub to open a pull request for, or you may not see it."
        raise RepoError(problem, advice="Check the spelling, or leave out --pr to make it.")
    if owner not in account.owners:
        problem = f"You are {account.name} and may not make {repo}: {owner} is neither you nor one of your groups."
        raise RepoError(problem, advice=f"Push to {account.name}/{name}.")


def _require_write(api: HfApi, repo: str, kind: Kind) -> None:
    try:
        ask(repo, lambda: api.auth_check(repo, repo_type=kind, write=True))
    except HfHubHTTPError as error:
        if status_of(error) != 403:
            raise
        advice = "Give --pr to open a pull request." if kind == "model" else "Give another id."
        raise OutputError(f"You may not write to {repo}.", advice=advice) from error


def look(api: HfApi, repo: str, revision: str = MAIN, url: str | None = None, *, kind: Kind = "model") -> Target:
    """What is there now."""
    url = url or f"{api.endpoint}/{'spaces/' if kind == 'space' else ''}{repo}"
    try:
        info: Any = ask(repo, lambda: api.repo_info(repo, revision=revision, repo_type=kind, files_metadata=True))
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return Target(repo=repo, commit=None, revision=revision, url=url, files={})
    return Target(
        repo=repo,
        commit=commit_of(repo, info),
        revision=revision,
        url=url,
        files=listed(repo, info),
        private=bool(info.private),
    )


def own_pull_requests(api: HfApi, repo: str, *, user: str, title: str) -> list[Target]:
    """The open pull requests of this user and title, the newest last."""
    found = ask(repo, lambda: list(api.get_repo_discussions(repo, author=user, discussion_type="pull_request")))
    own = [one for one in found if one.title == title and one.status in ("open", "draft")]
    if not all(type(one.num) is int for one in own):
        raise nonsense(repo, "a pull request has no number")
    return [
        look(api, repo, f"refs/pr/{one.num}", f"{api.endpoint}/{repo}/discussions/{one.num}")
        for one in sorted(own, key=lambda one: one.num)
    ]


def card_at(api: HfApi, target: Target) -> str | None:
    """The text of the card that is there; None if there is none."""
    file = target.files.get(CARD_NAME)
    if file is None or target.commit is None:
        return None
    problem = f"The {CARD_NAME} of {target.repo} cannot be merged with ours:"
    if (file.size or 0) > LARGEST_CARD:
        raise OutputError(f"{problem} it has {(file.size or 0) / 1e6:.0f} MB.", advice="Shorten it.")
    try:
        path = ask(target.repo, lambda: api.hf_hub_download(target.repo, CARD_NAME, revision=target.commit))
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OutputError(f"{problem} {first_line(error)}.", advice="Save it as UTF-8.") from error
    if reason := read_metadata(text).problem:
        raise OutputError(f"{problem} of its metadata, {reason}.", advice="Write them as plain YAML.")
    return text
