"""The process side of the Hub: a uvicorn in a thread, the faults that strike requests, and the log of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.loopback import reading, writing  # noqa: F401 - they fill the table of routes
from tests.loopback.events import Postman
from tests.loopback.faults import Fault
from tests.loopback.store import HubError, Store, Token
from tests.loopback.wire import ENTRIES, Call, Entry


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request that came in.

    ``authorized`` says whether it carried a token, ``status`` 0 that it got no answer, ``sent`` how many bytes
    of content the answer had, ``body`` what it brought.
    """

    route: str
    method: str
    host: str
    path: str
    query: str
    authorized: bool
    status: int
    sent: int
    body: bytes = field(default=b"", repr=False)


class Server:
    """Answers requests from a `Store`."""

    def __init__(self, port: int = 0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            self.port: int = probe.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        # A second name for the same machine: to clients another host, as the file host of the real Hub.
        self.file_host = f"http://localhost:{self.port}"
        self.lock = threading.RLock()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._app = _make_app(self)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        with self.lock:
            self.postman = Postman(self.endpoint)
            self.store = Store(self.postman)
            self.faults: list[Fault] = []
            self.log: list[Request] = []
            self.page_size = 1000

    def start(self) -> None:
        """Listen, in a thread of its own."""
        config = uvicorn.Config(
            self._app,
            "127.0.0.1",
            self.port,
            http="h11",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="loopback hub", daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError(f"The loopback Hub cannot listen on port {self.port}")
            time.sleep(0.005)

    def stop(self) -> None:
        """Listen no more: connections are refused."""
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join()
            self._server = self._thread = None

    @contextmanager
    def down(self) -> Iterator[None]:
        """Nobody listens while this lasts."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def fail(self, route: str, *, status: int | None = None, **how: Any) -> Fault:
        """Let requests of a route fail; an error 503 if nothing else is said. The fields are those of `Fault`."""
        if status is None and not {"drop_after", "slow", "corrupt", "forge"} & how.keys():
            status = 503
        return self._add(Fault(route=route, status=status, **how))

    def when(self, route: str, action: Callable[[], object], **which: Any) -> Fault:
        """Do something just before requests of a route are answered, once if nothing else is said."""
        return self._add(Fault(route=route, action=action, **which))

    def _add(self, fault: Fault) -> Fault:
        if fault.route not in ("*", *self.routes()):
            raise ValueError(f"{fault.route!r} is no route; there are {', '.join(self.routes())}")
        self.faults.append(fault)
        return fault

    @staticmethod
    def routes() -> list[str]:
        """The names of all routes."""
        return sorted({entry.name for entry in ENTRIES})

    def asked(self, route: str, method: str | None = None) -> list[Request]:
        """The requests of one route so far."""
        return [request for request in self.log if request.route == route and method in (None, request.method)]

    def leaks(self) -> list[Request]:
        """Requests that took a token to the file host."""
        return [request for request in self.log if request.authorized and request.host.startswith("localhost")]

    async def answer(self, entry: Entry, request: HttpRequest) -> Response:
        """Answer a request, as far as the faults let it be answered, and note it down."""
        body = await request.body()
        path, host = request.scope["raw_path"].decode(), request.headers.get("host", "")
        struck = [fault for fault in self.faults if fault.strikes(entry.name, request.method, path)]
        for fault in struck:
            if fault.action:
                # In another thread: what happens may be a request of its own.
                await run_in_threadpool(fault.action)
        errors = [error for fault in struck if (error := fault.error())]
        response = errors[0] if errors else self._respond(entry, request, path, body)
        for fault in struck:
            response = fault.spoil(response, self._hang_up)
        dropped = any(fault.drop_after == 0 for fault in struck)
        self.log.append(
            Request(
                route=entry.name,
                method=request.method,
                host=host,
                path=path,
                query=request.url.query,
                authorized="authorization" in request.headers,
                status=0 if dropped else response.status_code,
                sent=0 if dropped or request.method == "HEAD" else len(response.body),
                body=body,
            )
        )
        return response

    def _respond(self, entry: Entry, request: HttpRequest, path: str, body: bytes) -> Response:
        try:
            with self.lock:
                call = Call(
                    store=self.store,
                    endpoint=self.endpoint,
                    file_host=self.file_host,
                    method=request.method,
                    path=path,
                    query_string=request.url.query,
                    headers=request.headers,
                    params=request.path_params,
                    body=body,
                    caller=self._caller(request.headers.get("authorization")),
                    page_size=self.page_size,
                )
                return entry.handler(call)
        except HubError as error:
            headers = {"X-Error-Message": " ".join(error.message.split()), **error.extra}
            if error.code:
                headers["X-Error-Code"] = error.code
            return JSONResponse({"error": error.message}, error.status, headers)

    def _caller(self, authorization: str | None) -> Token | None:
        if authorization is None:
            return None
        token = self.store.tokens.get(authorization.removeprefix("Bearer "))
        if token is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return token

    def _hang_up(self, scope: Scope) -> None:
        """Close the connection that a request came by."""
        connections: Any = list(self._server.server_state.connections) if self._server else []
        for connection in connections:
            if connection.client == scope["client"]:
                connection.transport.close()


def _make_app(server: Server) -> Callable[[Scope, Receive, Send], Any]:
    def endpoint(entry: Entry) -> Callable[[HttpRequest], Any]:
        async def answer(request: HttpRequest) -> Response:
            return await server.answer(entry, request)

        return answer

    routes = [Route(path, endpoint(entry), methods=[entry.method]) for entry in ENTRIES for path in entry.paths]
    rest = Route("/{path:path}", endpoint(Entry("unknown", "GET", (), _unknown)), methods=["GET", "POST", "PUT"])
    app = Starlette(routes=[*routes, rest])

    async def with_raw_path(scope: Scope, receive: Receive, send: Send) -> None:
        """Match routes on the path as it was sent, for a revision may hold an encoded slash."""
        path = scope["raw_path"].decode()
        is_model = path.split("/")[1] not in ("api", "files", "datasets", "spaces")
        await app({**scope, "path": f"/models{path}" if is_model else path}, receive, send)

    return with_raw_path


def _unknown(call: Call) -> Response:
    raise HubError(404, f"The loopback Hub does not know {call.method} {call.path}")
