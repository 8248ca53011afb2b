"""What a Hub tells webhooks: the payloads, and their delivery."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from tests.loopback.store import Discussion, Event, Repo


@dataclass(frozen=True)
class Webhook:
    """Where to send events; ``repo`` limits them to one repository."""

    url: str
    secret: str | None = None
    repo: str | None = None


@dataclass(frozen=True)
class Delivery:
    """A payload that was sent, and the answer's status; 0 if nobody answered."""

    webhook: Webhook
    payload: dict[str, Any]
    status: int


def payload(event: Event, endpoint: str) -> dict[str, Any]:
    """What the Hub posts, version 3."""
    repo = event.repo
    prefix = "" if repo.kind == "models" else f"{repo.kind}/"
    web = f"{endpoint}/{prefix}{repo.id}"
    said: dict[str, Any] = {
        "event": {"action": event.action, "scope": event.scope},
        "repo": {
            "type": repo.kind[:-1],
            "name": repo.id,
            "id": _id(repo.id),
            "private": repo.private,
            "url": {"web": web, "api": f"{endpoint}/api/{repo.kind}/{repo.id}"},
            "headSha": repo.refs["refs/heads/main"],
            "tags": [],
            "owner": {"id": _id(repo.owner)},
        },
        "webhook": {"id": _id("webhook"), "version": 3},
    }
    if event.discussion:
        said["discussion"] = _discussion(repo, event.discussion, f"{web}/discussions/{event.discussion.num}")
        if event.comment is not None:
            said["comment"] = {
                "id": event.comment["id"],
                "author": {"id": _id(event.comment["author"]["name"])},
                "hidden": False,
                "content": event.comment["data"]["latest"]["raw"],
                "url": {"web": f"{web}/discussions/{event.discussion.num}#{event.comment['id']}"},
            }
    if event.moved:
        ref, old, new = event.moved
        said["updatedRefs"] = [{"ref": ref, "oldSha": old, "newSha": new}]
    return said


def _discussion(repo: Repo, discussion: Discussion, web: str) -> dict[str, Any]:
    return {
        "id": _id(f"{repo.id}/{discussion.num}"),
        "num": discussion.num,
        "title": discussion.title,
        "author": {"id": _id(discussion.author)},
        "url": {"web": web, "api": web},
        "status": discussion.status,
        "isPullRequest": discussion.base is not None,
        **({"changes": {"base": "refs/heads/main"}} if discussion.base else {}),
    }


def _id(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()[:24]


class Postman:
    """Delivers events in threads, for the receiver may ask the Hub something before it answers."""

    def __init__(self, endpoint: str) -> None:
        self.webhooks: list[Webhook] = []
        self.payloads: list[dict[str, Any]] = []
        self.deliveries: list[Delivery] = []
        self._endpoint = endpoint
        self._threads: list[threading.Thread] = []

    def __call__(self, event: Event) -> None:
        """Keep the payload of an event and send it to who wants it."""
        said = payload(event, self._endpoint)
        self.payloads.append(said)
        for webhook in self.webhooks:
            if webhook.repo in (None, event.repo.id):
                thread = threading.Thread(target=self._post, args=(webhook, said), daemon=True)
                self._threads.append(thread)
                thread.start()

    def wait(self) -> list[Delivery]:
        """All deliveries, once they have ended."""
        while self._threads:
            self._threads.pop().join()
        return self.deliveries

    def _post(self, webhook: Webhook, said: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", "X-Webhook-Secret": webhook.secret or ""}
        request = urllib.request.Request(webhook.url, json.dumps(said).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status = response.status
        except urllib.error.HTTPError as error:
            status = error.code
        except OSError:
            status = 0
        self.deliveries.append(Delivery(webhook, said, status))
