"""How requests reach the functions that answer them: the table of routes, and what each of them is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlencode

from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import JSONResponse, Response

from tests.loopback.store import KINDS, Commit, HubError, Kind, Repo, Store, Token


class _KindConvertor(Convertor[str]):
    regex = "|".join(KINDS)

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("kind", _KindConvertor())

REPO = "/api/{kind:kind}/{owner}/{name}"
WEB = "/{kind:kind}/{owner}/{name}"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, read to its end, and who sent it."""

    store: Store
    endpoint: str
    file_host: str
    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    params: Mapping[str, str]
    body: bytes
    caller: Token | None
    page_size: int = 1000

    @cached_property
    def repo(self) -> Repo:
        """The repository that the path names, if the caller may see it."""
        return self.store.find(self.kind, f"{self.param('owner')}/{self.param('name')}", self.caller)

    @cached_property
    def commit(self) -> Commit:
        """The commit that the path names; main if it names none."""
        return self.repo.at(self.param("rev") or "main")

    @cached_property
    def kind(self) -> Kind:
        return cast("Kind", self.params["kind"])

    @cached_property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.query_string, keep_blank_values=True)

    def param(self, name: str) -> str:
        """A part of the path, decoded; revisions may hold encoded slashes."""
        return unquote(self.params.get(name, ""))

    def asks(self, name: str) -> bool:
        """Whether the query switches this on."""
        return self.query.get(name, ["false"])[0].lower() in ("true", "1")

    def one(self, name: str) -> str | None:
        return self.query.get(name, [None])[0]

    def json(self) -> Any:
        try:
            return json.loads(self.body or b"null")
        except ValueError as error:
            raise HubError(400, "The body is no JSON") from error

    def url(self, repo: Repo, *parts: object) -> str:
        """The address of a page of a repository."""
        prefix = "" if repo.kind == "models" else f"{repo.kind}/"
        return "/".join([self.endpoint, f"{prefix}{repo.id}", *map(str, parts)])

    def page(self, items: list[Any]) -> Response:
        """A page of a list, with a link to the next one."""
        start = int(self.one("cursor") or 0)
        size = min(int(self.one("limit") or self.page_size), self.page_size)
        response = JSONResponse(items[start : start + size])
        if start + size < len(items):
            query = urlencode({**self.query, "cursor": [str(start + size)]}, doseq=True)
            response.headers["Link"] = f'<{self.endpoint}{self.path}?{query}>; rel="next"'
        return response


Handler = Callable[[Call], Response]


@dataclass(frozen=True)
class Entry:
    """A row of the table: the name is what faults and the log call it."""

    name: str
    method: str
    paths: tuple[str, ...]
    handler: Handler = field(repr=False)


ENTRIES: list[Entry] = []


def route(name: str, method: str, *paths: str) -> Callable[[Handler], Handler]:
    """Add a function to the table."""

    def add(handler: Handler) -> Handler:
        ENTRIES.append(Entry(name, method, paths, handler))
        return handler

    return add
