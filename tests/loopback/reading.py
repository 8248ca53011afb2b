"""Requests that change nothing: who am I, what is there, and the files themselves."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.responses import JSONResponse, Response

from tests.loopback.cards import card_tags, check_card
from tests.loopback.store import Blob, Commit, HubError, Repo
from tests.loopback.wire import REPO, WEB, Call, route


@route("whoami", "GET", "/api/whoami-v2")
def whoami(call: Call) -> Response:
    if call.caller is None:
        raise HubError(401, "Invalid username or password.")
    user = call.caller.user
    orgs = [{"type": "org", "name": org, "fullname": org} for org in sorted(call.store.users[user])]
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": call.caller.role}}
    return JSONResponse({"type": "user", "id": user, "name": user, "fullname": user, "orgs": orgs, "auth": auth})


@route("list", "GET", "/api/{kind:kind}")
def list_repos(call: Call) -> Response:
    author, search, tags = call.one("author"), call.one("search"), call.query.get("filter", [])
    found = []
    for (kind, id_), repo in sorted(call.store.repos.items()):
        visible = not repo.private or call.store.is_member(call.caller, repo.owner)
        if kind == call.kind and visible and (author or repo.owner) == repo.owner and (search or "") in id_:
            info = describe(repo, repo.at("main"))
            if set(tags) <= set(info["tags"]):
                found.append(info)
    return call.page(found)


@route("info", "GET", REPO, f"{REPO}/revision/{{rev}}")
def info(call: Call) -> Response:
    return JSONResponse(
        describe(call.repo, call.commit, blobs=call.asks("blobs"), security=call.asks("securityStatus"))
    )


def describe(repo: Repo, commit: Commit, *, blobs: bool = False, security: bool = False) -> dict[str, Any]:
    """What the Hub says of a repository at one commit."""
    metadata: dict[str, Any] = {}
    if "README.md" in commit.files:
        metadata, _, _ = check_card(commit.files["README.md"].data.decode(errors="replace"))
    said: dict[str, Any] = {
        "_id": hashlib.sha1(f"{repo.kind}/{repo.id}".encode()).hexdigest()[:24],
        "id": repo.id,
        "author": repo.owner,
        "sha": commit.id,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card_tags(metadata),
        "cardData": metadata,
        "siblings": [_sibling(path, blob, blobs=blobs) for path, blob in sorted(commit.files.items())],
    }
    if repo.kind == "models":
        said["config"] = _config(commit)
        said |= {key: metadata[key] for key in ("pipeline_tag", "library_name", "model-index") if key in metadata}
    if repo.kind == "spaces":
        said["sdk"] = repo.sdk
    if security:
        issues = [{"path": path, "level": level} for path, level in repo.flags.items() if path in commit.files]
        said["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": issues}
    return said


def _sibling(path: str, blob: Blob, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    stored: dict[str, Any] = {"rfilename": path, "size": len(blob.data), "blobId": blob.oid}
    if blob.lfs:
        stored["lfs"] = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return stored


def _config(commit: Commit) -> dict[str, Any]:
    try:
        config = json.loads(commit.files["config.json"].data)
        return {key: config[key] for key in ("architectures", "model_type", "auto_map") if key in config}
    except (KeyError, ValueError, TypeError):
        return {}


@route("auth-check", "GET", f"{REPO}/auth-check", f"{REPO}/auth-check/{{what}}")
def auth_check(call: Call) -> Response:
    call.store.require_content(call.repo, call.caller)
    if call.param("what") == "write":
        call.store.require_owner(call.repo.owner, call.caller)
    return Response()


@route("tree", "GET", f"{REPO}/tree/{{rev}}", f"{REPO}/tree/{{rev}}/{{path:path}}")
def tree(call: Call) -> Response:
    folder = call.param("path").strip("/")
    files = call.commit.below(folder)
    if folder and not files:
        raise HubError(404, f"{folder} does not exist on {call.param('rev')!r}", "EntryNotFound")
    depth = len(PurePosixPath(folder).parts)
    entries: dict[str, dict[str, Any]] = {}
    for path, blob in files.items():
        parents = [parent for parent in PurePosixPath(path).parents if len(parent.parts) > depth]
        for parent in reversed(parents):
            entries[str(parent)] = _folder(call.commit, str(parent))
        entries[path] = _file(path, blob)
    if not call.asks("recursive"):
        entries = {path: entry for path, entry in entries.items() if len(PurePosixPath(path).parts) == depth + 1}
    return call.page(list(entries.values()))


@route("paths-info", "POST", f"{REPO}/paths-info/{{rev}}")
def paths_info(call: Call) -> Response:
    found = []
    for path in parse_qs(call.body.decode()).get("paths", []):
        if path in call.commit.files:
            found.append(_file(path, call.commit.files[path]))
        elif call.commit.below(path):
            found.append(_folder(call.commit, path))
    return JSONResponse(found)


def _file(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": len(blob.data), "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
    return entry


def _folder(commit: Commit, path: str) -> dict[str, Any]:
    content = "".join(blob.oid for blob in commit.below(path).values())
    return {"type": "directory", "oid": hashlib.sha1(content.encode()).hexdigest(), "size": 0, "path": path}


@route("refs", "GET", f"{REPO}/refs")
def refs(call: Call) -> Response:
    def listed(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit}
            for ref, commit in sorted(call.repo.refs.items())
            if ref.startswith(prefix)
        ]

    found: dict[str, Any] = {"branches": listed("refs/heads/"), "tags": listed("refs/tags/"), "converts": []}
    if call.asks("include_prs"):
        found["pullRequests"] = listed("refs/pr/")
    return JSONResponse(found)


@route("commits", "GET", f"{REPO}/commits/{{rev}}")
def commits(call: Call) -> Response:
    history = call.repo.history(call.param("rev"))
    return call.page(
        [
            {
                "id": commit.id,
                "title": commit.title,
                "message": commit.message,
                "date": commit.date,
                "authors": [{"user": commit.author}],
            }
            for commit in history
        ]
    )


@route("resolve", "GET", f"{WEB}/resolve/{{rev}}/{{path:path}}")
def resolve(call: Call) -> Response:
    call.store.require_content(call.repo, call.caller)
    path, commit = call.param("path"), call.commit
    headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    blob = commit.files.get(path)
    if blob is None:
        raise HubError(404, f"Entry not found: {path}", "EntryNotFound", **headers)
    if not blob.lfs:
        return _ranged(call, blob.data, {**headers, "ETag": f'"{blob.oid}"'})
    headers |= {
        "X-Linked-Etag": f'"{blob.sha256}"',
        "X-Linked-Size": str(len(blob.data)),
        "Location": f"{call.file_host}/files/{blob.sha256}/{quote(path)}?Signature=test",
    }
    return Response(status_code=302, headers=headers)


@route("download", "GET", "/files/{sha256}/{path:path}")
def download(call: Call) -> Response:
    _refuse_authorization(call)
    data = call.store.objects.get(call.param("sha256"))
    if data is None:
        raise HubError(404, "No such object")
    return _ranged(call, data, {"ETag": f'"{call.param("sha256")}"', "Accept-Ranges": "bytes"})


def _refuse_authorization(call: Call) -> None:
    """The addresses of the file host are signed: as S3, it refuses a second way to authenticate."""
    if "authorization" in call.headers:
        raise HubError(400, "Only one auth mechanism allowed: a Hub token was sent to the file host")


def _ranged(call: Call, data: bytes, headers: dict[str, str]) -> Response:
    """The content, or the part of it that a Range header asks for."""
    kind = "application/octet-stream"
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", ""))
    if not wanted or not any(wanted.groups()):
        return Response(data, headers=headers, media_type=kind)
    first, last = wanted.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= len(data) or stop <= start:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    return Response(data[start:stop], 206, headers=headers, media_type=kind)
