"""Requests that change repositories: create, upload, commit, tag, discuss, merge."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import PurePosixPath
from typing import Any, Literal

from starlette.responses import JSONResponse, Response

from tests.loopback.cards import check_card
from tests.loopback.store import Blob, Discussion, Event, HubError, Kind, Repo, Token, goes_to_file_host
from tests.loopback.wire import REPO, WEB, Call, route


@route("create", "POST", "/api/repos/create")
def create(call: Call) -> Response:
    said = call.json()
    account = call.store.require_account(call.caller)
    owner = said.get("organization") or account.user
    call.store.require_owner(owner, call.caller)
    kind, id_ = _plural(said.get("type")), f"{owner}/{said['name']}"
    if (kind, id_) in call.store.repos:
        url = call.url(call.store.repos[kind, id_])
        return JSONResponse({"error": "You already created this repo", "url": url}, 409)
    private = said.get("visibility") == "private"
    repo = call.store.create(kind, id_, account.user, private=private, sdk=said.get("sdk"))
    return JSONResponse({"url": call.url(repo), "name": id_, "id": id_})


@route("delete", "DELETE", "/api/repos/delete")
def delete(call: Call) -> Response:
    said = call.json()
    owner = said.get("organization") or call.store.require_account(call.caller).user
    repo = call.store.find(_plural(said.get("type")), f"{owner}/{said['name']}", call.caller)
    call.store.require_owner(owner, call.caller)
    call.store.publish(Event(repo=repo, action="delete", scope="repo"))
    del call.store.repos[repo.kind, repo.id]
    return Response()


def _plural(kind: str | None) -> Kind:
    kinds: dict[str | None, Kind] = {None: "models", "model": "models", "dataset": "datasets", "space": "spaces"}
    if kind not in kinds:
        raise HubError(400, f"Unknown type {kind!r}")
    return kinds[kind]


@route("settings", "PUT", f"{REPO}/settings")
def settings(call: Call) -> Response:
    call.store.require_owner(call.repo.owner, call.caller)
    said = call.json()
    if "visibility" in said:
        call.repo.private = said["visibility"] == "private"
    if "gated" in said:
        call.repo.gated = said["gated"]
    call.store.publish(Event(repo=call.repo, action="update", scope="repo.config"))
    return JSONResponse({"private": call.repo.private, "gated": call.repo.gated})


@route("validate-yaml", "POST", "/api/validate-yaml")
def validate_yaml(call: Call) -> Response:
    _, errors, warnings = check_card(call.json()["content"])
    said = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return JSONResponse(said, 400 if errors else 200)


@route("preupload", "POST", f"{REPO}/preupload/{{rev}}")
def preupload(call: Call) -> Response:
    _require_commit(call)
    told = []
    for file in call.json()["files"]:
        path, sample = file["path"], base64.b64decode(file["sample"])
        there = call.commit.files.get(path)
        told.append(
            {
                "path": path,
                "uploadMode": "lfs" if goes_to_file_host(path, file["size"], sample) else "regular",
                "shouldIgnore": False,
                "oid": there and (there.sha256 if there.lfs else there.oid),
            }
        )
    return JSONResponse({"files": told})


def _require_commit(call: Call) -> Token:
    """The caller may commit here: into the namespace, into their own pull request, or by opening one."""
    account = call.store.require_account(call.caller)
    if call.asks("create_pr"):
        return account
    own = {discussion.ref for discussion in call.repo.discussions if discussion.author == account.user}
    return account if call.param("rev") in own else call.store.require_owner(call.repo.owner, call.caller)


@route("lfs-batch", "POST", f"{WEB}.git/info/lfs/objects/batch")
def lfs_batch(call: Call) -> Response:
    call.store.require_account(call.caller)
    said = call.json()
    missing = [wanted for wanted in said["objects"] if wanted["oid"] not in call.store.objects]
    used = call.store.used(call.repo.owner) + sum(wanted["size"] for wanted in missing)
    if call.store.quota is not None and used > call.store.quota:
        raise HubError(403, "Storage limit reached: upgrade your account or delete repositories")
    objects: list[dict[str, Any]] = []
    for wanted in said["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted in missing:
            upload = {"href": f"{call.file_host}/files/{wanted['oid']}?Signature=test", "header": {}}
            answer["actions"] = {"upload": upload, "verify": {"href": call.url(call.repo, "lfs-verify")}}
        objects.append(answer)
    return JSONResponse({"transfer": "basic", "objects": objects})


@route("upload", "PUT", "/files/{sha256}")
def upload(call: Call) -> Response:
    if "authorization" in call.headers:
        raise HubError(400, "Only one auth mechanism allowed: a Hub token was sent to the file host")
    if hashlib.sha256(call.body).hexdigest() != call.param("sha256"):
        raise HubError(400, "The content does not have the announced sha256")
    call.store.objects[call.param("sha256")] = call.body
    return Response()


@route("lfs-verify", "POST", f"{WEB}/lfs-verify")
def lfs_verify(call: Call) -> Response:
    said = call.json()
    if len(call.store.objects.get(said["oid"], b"")) != said["size"]:
        raise HubError(404, "No such object")
    return Response()


@route("commit", "POST", f"{REPO}/commit/{{rev}}")
def commit(call: Call) -> Response:
    account = _require_commit(call)
    header, changes = _read_commit(call)
    repo, revision = call.repo, call.param("rev")
    ref = repo.ref_named(revision)
    if ref is None or ref.startswith("refs/tags/"):
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    parent = header.get("parentCommit")
    pull_request: Discussion | None = None
    if call.asks("create_pr"):
        base = repo.at(parent).id if parent else repo.refs[ref]
        title, text = header["summary"], header.get("description", "")
        pull_request = call.store.open_discussion(repo, account.user, title, text, base=base)
        ref = pull_request.ref
    elif parent and parent != repo.refs[ref]:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    made = call.store.commit(
        repo, ref, changes, title=header["summary"], message=header.get("description", ""), author=account.user
    )
    for discussion in repo.discussions:
        if discussion.ref == ref:
            discussion.add_event("commit", account.user, subject=made.title, oid=made.id)
    said: dict[str, Any] = {"success": True, "commitOid": made.id, "commitUrl": call.url(repo, "commit", made.id)}
    if pull_request:
        said["pullRequestUrl"] = call.url(repo, "discussions", pull_request.num)
    return JSONResponse(said)


def _read_commit(call: Call) -> tuple[dict[str, Any], dict[str, Blob | None]]:
    """(header, changed files) of the lines of a commit; everything is checked before anything changes."""
    header: dict[str, Any] = {}
    changes: dict[str, Blob | None] = {}
    for line in call.body.splitlines():
        item = json.loads(line)
        key, value = item["key"], item["value"]
        if key == "header":
            header = value
        elif key == "deletedFolder":
            changes |= dict.fromkeys(call.commit.below(value["path"].strip("/")))
        elif key == "deletedFile":
            changes[value["path"]] = None
        else:
            changes[value["path"]] = _blob(call, key, value)
    _check_changes(call, changes)
    return header, changes


def _blob(call: Call, key: str, value: dict[str, Any]) -> Blob:
    if key == "lfsFile":
        if value["oid"] not in call.store.objects:
            raise HubError(400, f"LFS pointer of {value['path']} points to a file that was not uploaded")
        return Blob(call.store.objects[value["oid"]], lfs=True)
    return Blob(base64.b64decode(value["content"]), lfs=False)


def _check_changes(call: Call, changes: dict[str, Blob | None]) -> None:
    for path, blob in changes.items():
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or {"..", ".git"} & set(parts):
            raise HubError(400, f"Invalid path {path!r}")
        if blob is None and path not in call.commit.files:
            raise HubError(404, f"{path} does not exist", "EntryNotFound")
        if path == "README.md" and blob:
            _, errors, _ = check_card(blob.data.decode(errors="replace"))
            if errors:
                raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")


@route("branch", "POST", f"{REPO}/branch/{{ref}}")
def create_branch(call: Call) -> Response:
    start = (call.json() or {}).get("startingPoint") or "main"
    return _create_ref(call, f"refs/heads/{call.param('ref')}", start)


@route("branch", "DELETE", f"{REPO}/branch/{{ref}}")
def delete_branch(call: Call) -> Response:
    return _delete_ref(call, f"refs/heads/{call.param('ref')}")


@route("tag", "POST", f"{REPO}/tag/{{rev}}")
def create_tag(call: Call) -> Response:
    return _create_ref(call, f"refs/tags/{call.json()['tag']}", call.param("rev"))


@route("tag", "DELETE", f"{REPO}/tag/{{ref}}")
def delete_tag(call: Call) -> Response:
    return _delete_ref(call, f"refs/tags/{call.param('ref')}")


def _create_ref(call: Call, ref: str, start: str) -> Response:
    call.store.require_owner(call.repo.owner, call.caller)
    target = call.repo.at(start)
    if ref in call.repo.refs:
        raise HubError(409, "Reference already exists")
    call.repo.refs[ref] = target.id
    return Response()


def _delete_ref(call: Call, ref: str) -> Response:
    call.store.require_owner(call.repo.owner, call.caller)
    if ref not in call.repo.refs or ref == "refs/heads/main":
        raise HubError(404, f"Invalid rev id: {ref}", "RevisionNotFound")
    del call.repo.refs[ref]
    return Response()


DISCUSSIONS = f"{REPO}/discussions"
DISCUSSION = f"{DISCUSSIONS}/{{num}}"


@route("discuss", "POST", DISCUSSIONS)
def open_discussion(call: Call) -> Response:
    account, said = call.store.require_account(call.caller), call.json()
    base = call.repo.refs["refs/heads/main"] if said.get("pullRequest") else None
    title, text = said["title"], said.get("description", "")
    status: Literal["draft", "open"] = "draft" if base else "open"
    made = call.store.open_discussion(call.repo, account.user, title, text, base=base, status=status)
    return JSONResponse({"num": made.num, "pullRequest": bool(base)})


@route("discussions", "GET", DISCUSSIONS)
def discussions(call: Call) -> Response:
    kind, status, author = call.one("type"), call.one("status"), call.one("author")
    open_ = ("open", "draft")
    found = [
        _discussion(call, discussion)
        for discussion in reversed(call.repo.discussions)
        if kind in (None, "all", "pull_request" if discussion.base else "discussion")
        and status in (None, "all", "open" if discussion.status in open_ else "closed")
        and author in (None, discussion.author)
    ]
    return JSONResponse({"discussions": found, "count": len(found), "start": 0})


@route("discussion", "GET", DISCUSSION)
def discussion_details(call: Call) -> Response:
    found = _numbered(call)
    said = _discussion(call, found) | {"events": found.events}
    if found.base:
        said["filesWithConflicts"] = call.store.conflicts(call.repo, found) if found.status != "merged" else []
        said["changes"] = {"base": "refs/heads/main", "mergeCommitId": found.merge_commit}
        said["diff"] = "".join(f"diff --git a/{path} b/{path}\n" for path in _touched(call.repo, found))
    return JSONResponse(said)


@route("discuss", "POST", f"{DISCUSSION}/{{verb}}")
def change_discussion(call: Call) -> Response:
    account, found, said = call.store.require_account(call.caller), _numbered(call), call.json() or {}
    verb = call.param("verb")
    if verb == "comment":
        return JSONResponse({"newMessage": _comment(call, found, said["comment"])})
    if account.user != found.author or verb == "merge":
        call.store.require_owner(call.repo.owner, call.caller)
    if verb == "merge":
        call.store.merge(call.repo, found, account.user)
        return JSONResponse({"merged": True})
    if said.get("comment"):
        _comment(call, found, said["comment"])
    if verb == "status":
        found.status = said["status"]
        call.store.publish(Event(repo=call.repo, action="update", scope="discussion", discussion=found))
        return JSONResponse({"newStatus": found.add_event("status-change", account.user, status=said["status"])})
    if verb == "title":
        changed = {"from": found.title, "to": said["title"]}
        found.title = said["title"]
        return JSONResponse({"newTitle": found.add_event("title-change", account.user, **changed)})
    raise HubError(404, f"Cannot {verb} a discussion")


def _comment(call: Call, discussion: Discussion, text: str) -> dict[str, Any]:
    assert call.caller
    made = discussion.comment(call.caller.user, text)
    call.store.publish(
        Event(repo=call.repo, action="create", scope="discussion.comment", discussion=discussion, comment=made)
    )
    return made


def _numbered(call: Call) -> Discussion:
    number = call.param("num")
    return call.repo.discussion(int(number) if number.isdigit() else 0)


def _discussion(call: Call, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "author": {"name": discussion.author},
        "status": discussion.status,
        "isPullRequest": discussion.base is not None,
        "createdAt": discussion.created,
        "repo": {"name": call.repo.id, "type": call.repo.kind[:-1]},
    }


def _touched(repo: Repo, discussion: Discussion) -> list[str]:
    assert discussion.base
    base, head = repo.commits[discussion.base].files, repo.at(discussion.ref).files
    return sorted(path for path in {*base, *head} if base.get(path) != head.get(path))
