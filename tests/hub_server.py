"""A Hub on loopback: the unmodified Hugging Face libraries talk to it through ``HF_ENDPOINT``.

It keeps everything in memory and speaks the Hub's wire protocol: repositories, large files on a second host,
commits, branches, tags, pull requests, discussions, private and gated repositories, tokens. `tests/conftest.py`
starts one before `huggingface_hub` is imported, and gives it to tests as the fixture ``hub``, empty each time.
Programs that a test starts find it, too, for ``HF_ENDPOINT`` is in the environment.

Repositories::

    hub.create("org/model", {"README.md": "text", "model.safetensors": b"..."})   # or a folder (Path) to copy
    hub.create("org/data", kind="datasets");  hub.create("org/x", private=True, gated="auto")
    hub.commit("org/model", {"a.txt": "new", "old.txt": None}, ref="main") -> commit id; None deletes
    hub.tag("org/model", "v1");  hub.flag("org/model", "x.bin", "unsafe")   # what the Hub's scanners say
    hub.head("org/model", "main") -> commit id;  hub.files("org/model", "main") -> {path: bytes}
    hub.discussions("org/model") -> list with num, title, status, base, events
    hub.page_size = 2   # lists come in pages of so many entries
    hub.state() -> everything that a push could change, to compare before and after (`==`)

Users::

    hub.token("write", user="me", orgs=("org",)) -> token for HF_TOKEN; "read" may change nothing
    hub.login("write", user="me")   # the same, and puts it into HF_TOKEN until the end of the test
    hub.accept("org/gated", user="me");  hub.quota = 1000   # bytes that each owner may store

Trouble (routes: see `hub.routes()`; "*" is all of them)::

    hub.fail("commit", status=503, times=2)            # twice; times=None: for ever; skip=1: not the first one
    hub.fail("download", drop_after=1000)              # the connection closes in mid-file; 0: without any answer
    hub.fail("download", slow=3.0)                     # the answer takes three seconds
    hub.fail("resolve", path="config.json", corrupt=True)   # one bit of the content is wrong; method="HEAD"
    hub.fail("info", forge=lambda response: HTMLResponse("<p>"))   # another answer than the real one
    hub.when("commit", lambda: hub.commit(...))        # something happens just before: a stale parent, a new head
    with hub.down(): ...                               # nobody listens: connection refused

What was asked::

    hub.log -> [Request(route, method, host, path, query, authorized, status, sent, body)]; hub.log.clear()
    hub.asked("commit") -> the requests of one route;  hub.leaks() -> those that took a token to the file host

Webhooks::

    hub.payloads -> what the Hub would post to webhooks, oldest first: commits, pull requests, comments, settings
    hub.webhook("http://127.0.0.1:9000/gate", secret="s", repo="org/model")   # and it does post
    hub.deliveries() -> [Delivery(webhook, payload, status)], once all have ended

Alone, to try things by hand (sub-folders org/name are models, datasets/org/name data sets)::

    python -m tests.hub_server --folder my-repos --port 8000
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tests.loopback.events import Delivery, Webhook
from tests.loopback.serving import Request, Server
from tests.loopback.store import Blob, Discussion, Kind, Repo, Role, Token

__all__ = ["Hub", "Request"]

Files = Mapping[str, bytes | str] | Path


class Hub(Server):
    """A Hub and the handle to it; see the module docstring."""

    def reset(self) -> None:
        """Forget everything; tests start with this."""
        super().reset()
        self.logout()

    def create(
        self,
        id_: str,
        files: Files | None = None,
        *,
        kind: Kind = "models",
        private: bool = False,
        gated: Literal[False, "auto", "manual"] = False,
    ) -> str:
        """Make a repository and return the id of its newest commit."""
        with self.lock:
            self.store.users.setdefault(id_.partition("/")[0], set())
            self.store.create(kind, id_, private=private, gated=gated)
            return self.commit(id_, files, kind=kind) if files else self.head(id_, kind=kind)

    def commit(
        self,
        id_: str,
        files: Mapping[str, bytes | str | None] | Path,
        *,
        ref: str = "main",
        kind: Kind = "models",
        title: str = "Update files",
    ) -> str:
        """Put files into a repository, or delete them (None), and return the new commit's id."""
        changes = {path: _blob(path, data) for path, data in _listed(files)}
        with self.lock:
            for blob in changes.values():
                if blob and blob.lfs:
                    self.store.objects[blob.sha256] = blob.data
            repo = self._repo(id_, kind)
            return self.store.commit(repo, repo.ref_named(ref) or f"refs/heads/{ref}", changes, title=title).id

    def tag(self, id_: str, name: str, *, rev: str = "main", kind: Kind = "models") -> None:
        """Name a commit."""
        repo = self._repo(id_, kind)
        repo.refs[f"refs/tags/{name}"] = repo.at(rev).id

    def flag(self, id_: str, path: str, level: str = "unsafe", *, kind: Kind = "models") -> None:
        """Let the Hub's scanners have seen something in a file."""
        self._repo(id_, kind).flags[path] = level

    def head(self, id_: str, rev: str = "main", *, kind: Kind = "models") -> str:
        """The id of the commit that a branch, tag or pull request names."""
        return self._repo(id_, kind).at(rev).id

    def files(self, id_: str, rev: str = "main", *, kind: Kind = "models") -> dict[str, bytes]:
        """The content of all files."""
        return {path: blob.data for path, blob in self._repo(id_, kind).at(rev).files.items()}

    def discussions(self, id_: str, *, kind: Kind = "models") -> list[Discussion]:
        """Discussions and pull requests, oldest first."""
        return self._repo(id_, kind).discussions

    def state(self) -> dict[str, Any]:
        """Everything that clients can change: settings, heads, files, discussions."""
        with self.lock:
            return {
                f"{kind}/{id_}": {
                    "private": repo.private,
                    "gated": repo.gated,
                    "refs": dict(repo.refs),
                    "files": {path: blob.sha256 for path, blob in repo.at("main").files.items()},
                    "discussions": [(found.title, found.status, len(found.events)) for found in repo.discussions],
                }
                for (kind, id_), repo in self.store.repos.items()
            }

    def _repo(self, id_: str, kind: Kind) -> Repo:
        return self.store.repos[kind, id_]

    @property
    def quota(self) -> int | None:
        """The bytes that each owner may store; None is no limit."""
        return self.store.quota

    @quota.setter
    def quota(self, size: int | None) -> None:
        self.store.quota = size

    def token(self, role: Role = "write", *, user: str = "me", orgs: Iterable[str] = ()) -> str:
        """A token of a user, who is made if needed."""
        with self.lock:
            self.store.users.setdefault(user, set()).update(orgs)
            text = f"hf_{role}_{user}_{len(self.store.tokens)}"
            self.store.tokens[text] = Token(user, role)
            return text

    def login(self, role: Role = "write", *, user: str = "me", orgs: Iterable[str] = ()) -> str:
        """Put a new token into HF_TOKEN, which this process and its children read, until the next reset."""
        os.environ["HF_TOKEN"] = self.token(role, user=user, orgs=orgs)
        return os.environ["HF_TOKEN"]

    def logout(self) -> None:
        """Take the token out of the environment."""
        os.environ.pop("HF_TOKEN", None)

    @property
    def payloads(self) -> list[dict[str, Any]]:
        """What was told to webhooks, or would be if there were any."""
        return self.postman.payloads

    def webhook(self, url: str, *, secret: str | None = None, repo: str | None = None) -> None:
        """Post what happens from now on, in one repository or in all, to this address."""
        self.postman.webhooks.append(Webhook(url, secret, repo))

    def deliveries(self) -> list[Delivery]:
        """Wait until all posts have ended, and return them."""
        return self.postman.wait()

    def accept(self, id_: str, user: str = "me", *, kind: Kind = "models") -> None:
        """Let a user have accepted the terms of a gated repository."""
        self._repo(id_, kind).accepted.add(user)


def _listed(files: Files | Mapping[str, bytes | str | None]) -> Iterator[tuple[str, bytes | str | None]]:
    if isinstance(files, Path):
        found = sorted(path for path in files.rglob("*") if path.is_file())
        yield from ((path.relative_to(files).as_posix(), path.read_bytes()) for path in found)
    else:
        yield from files.items()


def _blob(path: str, data: bytes | str | None) -> Blob | None:
    return None if data is None else Blob.of(path, data.encode() if isinstance(data, str) else data)


def main() -> None:
    """Serve the repositories of a folder until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A Hub on loopback, in memory.")
    parser.add_argument("--folder", type=Path, help="org/name are models, datasets/org/name data sets")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    hub = Hub(options.port)
    for folder in sorted(options.folder.glob("*/*")) if options.folder else ():
        if folder.parent.name == "datasets":
            for repo in sorted(folder.iterdir()):
                hub.create(f"{folder.name}/{repo.name}", repo, kind="datasets")
        else:
            hub.create(f"{folder.parent.name}/{folder.name}", folder)
    hub.start()
    token = hub.token("write", orgs=list(hub.store.users))
    sys.stdout.write(f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN={token} HF_HUB_DISABLE_XET=1\n")
    sys.stdout.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        hub.stop()


if __name__ == "__main__":
    main()
