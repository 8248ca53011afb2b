"""What a Hub knows: users, tokens, repositories with their commits, and stored objects. No HTTP here."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

Kind = Literal["models", "datasets", "spaces"]
Role = Literal["read", "write"]

KINDS: tuple[Kind, ...] = ("models", "datasets", "spaces")
MAIN = "refs/heads/main"
# What a new repository's .gitattributes sends to the file host, as far as tests meet it.
_LARGE_SUFFIXES = re.compile(
    r"\.(arrow|bin|bz2|ckpt|gz|h5|joblib|msgpack|npy|npz|onnx|parquet|pb|pickle|pkl|pt|pth|safetensors|tar|zip)"
)
# No two commits of a process are the same, also not of two Hubs: clients remember what they saw of a commit.
_TICKS = itertools.count()
_LARGE_SIZE = 10 * 1024 * 1024


class HubError(Exception):
    """An answer that is an error: status, the code that clients turn into an exception class, and words."""

    def __init__(self, status: int, message: str, code: str | None = None, **extra: str) -> None:
        self.status, self.message, self.code, self.extra = status, message, code, extra
        super().__init__(message)


def goes_to_file_host(path: str, size: int, sample: bytes) -> bool:
    """Whether a file is stored as a large or binary one, as opposed to in git."""
    large = bool(_LARGE_SUFFIXES.fullmatch(PurePosixPath(path).suffix.lower())) or size > _LARGE_SIZE or b"\0" in sample
    return large and size > 0


def now() -> str:
    """The time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass(frozen=True)
class Blob:
    """The content of a file and how it is stored."""

    data: bytes
    lfs: bool

    @classmethod
    def of(cls, path: str, data: bytes) -> Blob:
        """Store these bytes in the way that their path and content ask for."""
        return cls(data, goes_to_file_host(path, len(data), data[:512]))

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git keeps in place of a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def oid(self) -> str:
        """The git sha1 of what git keeps."""
        kept = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(kept) + kept).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A commit holds the whole tree, by path."""

    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: Mapping[str, Blob]

    def below(self, folder: str) -> dict[str, Blob]:
        """The files in a folder, however deep; all of them for the empty path."""
        prefix = f"{folder}/" if folder else ""
        return {path: blob for path, blob in sorted(self.files.items()) if path.startswith(prefix)}


@dataclass
class Discussion:
    """A discussion, or a pull request if it has a base commit."""

    num: int
    title: str
    author: str
    status: Literal["draft", "open", "closed", "merged"]
    base: str | None
    events: list[dict[str, Any]] = field(default_factory=list)
    merge_commit: str | None = None
    created: str = field(default_factory=now)

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"

    def add_event(self, kind: str, author: str, **data: Any) -> dict[str, Any]:
        number = len(self.events) + 1
        event = {
            "id": hashlib.sha1(f"{self.num}/{number}".encode()).hexdigest()[:24],
            "type": kind,
            "createdAt": now(),
            "author": {"name": author},
            "data": data,
        }
        self.events.append(event)
        return event

    def comment(self, author: str, text: str) -> dict[str, Any]:
        return self.add_event("comment", author, edited=False, hidden=False, latest={"raw": text})


@dataclass
class Repo:
    """One repository; ``refs`` maps full names (refs/heads/main, refs/tags/v1, refs/pr/1) to commit ids."""

    kind: Kind
    id: str
    private: bool = False
    gated: Literal[False, "auto", "manual"] = False
    sdk: str | None = None
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    flags: dict[str, str] = field(default_factory=dict)
    created: str = field(default_factory=now)

    @property
    def owner(self) -> str:
        return self.id.partition("/")[0]

    def ref_named(self, revision: str) -> str | None:
        """The full name of a branch, tag or pull request; None if there is none."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((name for name in names if name in self.refs), None)

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag, a pull request or the start of a commit id names."""
        ref = self.ref_named(revision)
        if ref:
            return self.commits[self.refs[ref]]
        found = [id_ for id_ in self.commits if len(revision) >= 7 and id_.startswith(revision)]
        if len(found) != 1:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[found[0]]

    def history(self, revision: str) -> list[Commit]:
        """A commit and its ancestors, newest first."""
        commit: Commit | None = self.at(revision)
        found = []
        while commit:
            found.append(commit)
            commit = self.commits[commit.parent] if commit.parent else None
        return found

    def discussion(self, num: int) -> Discussion:
        if not 0 < num <= len(self.discussions):
            raise HubError(404, "Discussion not found")
        return self.discussions[num - 1]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that webhooks are told; ``moved`` is a ref with its old and its new commit."""

    repo: Repo
    action: Literal["create", "update", "delete"]
    scope: Literal["repo", "repo.content", "repo.config", "discussion", "discussion.comment"]
    discussion: Discussion | None = None
    comment: dict[str, Any] | None = None
    moved: tuple[str, str | None, str] | None = None


@dataclass(frozen=True)
class Token:
    """Who may do what."""

    user: str
    role: Role


class Store:
    """All repositories and users of a Hub; ``publish`` is told what happens."""

    def __init__(self, publish: Callable[[Event], None]) -> None:
        self.publish = publish
        self.repos: dict[tuple[Kind, str], Repo] = {}
        self.users: dict[str, set[str]] = {}
        self.tokens: dict[str, Token] = {}
        self.objects: dict[str, bytes] = {}
        self.quota: int | None = None

    def create(self, kind: Kind, id_: str, author: str = "hub", **settings: Any) -> Repo:
        """Make a repository with its first commit."""
        if (kind, id_) in self.repos:
            raise HubError(409, "You already created this repo", url=id_)
        repo = self.repos[kind, id_] = Repo(kind, id_, **settings)
        attributes = Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", lfs=False)
        self.commit(repo, MAIN, {".gitattributes": attributes}, title="initial commit", author=author)
        self.publish(Event(repo=repo, action="create", scope="repo"))
        return repo

    def commit(
        self,
        repo: Repo,
        ref: str,
        changes: Mapping[str, Blob | None],
        *,
        title: str,
        message: str = "",
        author: str = "hub",
    ) -> Commit:
        """Put changed and deleted (None) files on top of a ref's head, and move the ref there."""
        parent = repo.refs.get(ref)
        files = dict(repo.commits[parent].files) if parent else {}
        for path, blob in changes.items():
            if blob is None:
                files.pop(path, None)
            else:
                files[path] = blob
        tree = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        date = now()
        content = f"{repo.kind} {repo.id} {parent} {title} {date} {next(_TICKS)}\n{tree}"
        commit = Commit(hashlib.sha1(content.encode()).hexdigest(), parent, title, message, author, date, files)
        repo.commits[commit.id] = commit
        old, repo.refs[ref] = repo.refs.get(ref), commit.id
        if old:
            self.publish(Event(repo=repo, action="update", scope="repo.content", moved=(ref, old, commit.id)))
        return commit

    def open_discussion(
        self,
        repo: Repo,
        author: str,
        title: str,
        text: str,
        *,
        base: str | None = None,
        status: Literal["draft", "open"] = "open",
    ) -> Discussion:
        """Start a discussion; with a ``base`` commit it is a pull request with a ref of its own."""
        discussion = Discussion(len(repo.discussions) + 1, title, author, status, base)
        repo.discussions.append(discussion)
        if base:
            repo.refs[discussion.ref] = base
        comment = discussion.comment(author, text)
        self.publish(Event(repo=repo, action="create", scope="discussion", discussion=discussion, comment=comment))
        return discussion

    def conflicts(self, repo: Repo, discussion: Discussion) -> list[str]:
        """The files that both the pull request and main changed since it started, differently."""
        assert discussion.base
        base, theirs = repo.commits[discussion.base].files, repo.at(discussion.ref).files
        ours = repo.at("main").files
        return [
            path
            for path in _changed(base, theirs)
            if path in _changed(base, ours) and ours.get(path) != theirs.get(path)
        ]

    def merge(self, repo: Repo, discussion: Discussion, author: str) -> Commit:
        """Put the changes of a pull request onto main."""
        if discussion.base is None or discussion.status == "merged":
            raise HubError(400, "This is no pull request that can be merged")
        if self.conflicts(repo, discussion):
            raise HubError(409, "This pull request has conflicts")
        theirs = repo.at(discussion.ref).files
        changes = {path: theirs.get(path) for path in _changed(repo.commits[discussion.base].files, theirs)}
        commit = self.commit(repo, MAIN, changes, title=f"{discussion.title} (#{discussion.num})", author=author)
        discussion.status, discussion.merge_commit = "merged", commit.id
        discussion.add_event("status-change", author, status="merged")
        self.publish(Event(repo=repo, action="update", scope="discussion", discussion=discussion))
        return commit

    def used(self, owner: str) -> int:
        """The bytes of all distinct files of an owner."""
        blobs = {
            blob.sha256: len(blob.data)
            for repo in self.repos.values()
            if repo.owner == owner
            for commit in repo.commits.values()
            for blob in commit.files.values()
        }
        return sum(blobs.values())

    # --- who may do what -------------------------------------------------------------------------------------

    def find(self, kind: Kind, id_: str, caller: Token | None) -> Repo:
        """A repository that the caller may know of; others do not exist, as far as the answer tells."""
        repo = self.repos.get((kind, id_))
        if repo is None or (repo.private and not self.is_member(caller, repo.owner)):
            raise HubError(404 if caller else 401, "Repository not found", "RepoNotFound")
        return repo

    def is_member(self, caller: Token | None, owner: str) -> bool:
        return caller is not None and (caller.user == owner or owner in self.users[caller.user])

    def require_content(self, repo: Repo, caller: Token | None) -> None:
        """The caller may read files: the repository is not gated, or its terms were accepted."""
        if repo.gated and not self.is_member(caller, repo.owner) and not (caller and caller.user in repo.accepted):
            message = f"Access to {repo.kind[:-1]} {repo.id} is restricted. You must have access to it."
            raise HubError(403 if caller else 401, message, "GatedRepo")

    def require_account(self, caller: Token | None) -> Token:
        """The caller may write something somewhere."""
        if caller is None:
            raise HubError(401, "Invalid username or password.")
        if caller.role != "write":
            raise HubError(403, "This token has no write permission: use a token with the role 'write'.")
        return caller

    def require_owner(self, owner: str, caller: Token | None) -> Token:
        """The caller may write into this namespace."""
        account = self.require_account(caller)
        if not self.is_member(account, owner):
            message = f'You don\'t have the rights to create a model under the namespace "{owner}".'
            raise HubError(403, message)
        return account


def _changed(old: Mapping[str, Blob], new: Mapping[str, Blob]) -> Iterable[str]:
    return sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
