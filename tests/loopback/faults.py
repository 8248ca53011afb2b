"""What can go wrong between a client and a Hub, on purpose: errors, cut and slow answers, spoiled bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send


@dataclass(kw_only=True)
class Fault:
    """One thing to go wrong.

    Attributes:
        route: the name of the route, or "*" for all.
        path: what the path of the request has to hold.
        method: which one; None is any.
        skip: how many requests that fit go well before.
        times: how often it goes wrong; None is for ever.
        status: an error of this status is the answer, and nothing is done.
        message: what it says.
        drop_after: the connection closes after so many bytes of the answer; with 0 there is none.
        slow: seconds that the content takes.
        corrupt: the last bit of the content is wrong.
        forge: makes another answer of the real one.
        action: called before the request is answered.
    """

    route: str
    path: str = ""
    method: str | None = None
    skip: int = 0
    times: int | None = 1
    status: int | None = None
    message: str = "Service Unavailable"
    drop_after: int | None = None
    slow: float = 0.0
    corrupt: bool = False
    forge: Callable[[Response], Response] | None = None
    action: Callable[[], object] | None = None

    def strikes(self, route: str, method: str, path: str) -> bool:
        """Whether it is this request's turn; counts those that fit."""
        fits = self.route in ("*", route) and self.method in (None, method) and self.path in path
        if not fits or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def error(self) -> Response | None:
        """The answer in place of the real one, if the fault is an error."""
        if self.status is None:
            return None
        return JSONResponse({"error": self.message}, self.status, {"X-Error-Message": self.message})

    def spoil(self, response: Response, hang_up: Callable[[Scope], None]) -> Response:
        """Let something happen to the real answer on its way."""
        if self.forge is not None:
            response = self.forge(response)
        if self.corrupt and response.body:
            body = bytearray(response.body)
            body[-1] ^= 1
            response.body = bytes(body)
        if self.drop_after is not None or self.slow:
            return _Troubled(response, self, hang_up)
        return response


class _Troubled(Response):
    """An answer that is sent slowly, or whose connection closes before its end."""

    def __init__(self, response: Response, fault: Fault, hang_up: Callable[[Scope], None]) -> None:
        self.status_code, self.body, self.raw_headers = response.status_code, response.body, response.raw_headers
        self._fault, self._hang_up = fault, hang_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._fault.drop_after
        if limit != 0:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            body = bytes(self.body)[:limit]
            step = max(1, len(body) // 10) if self._fault.slow else max(1, len(body))
            for start in range(0, len(body), step):
                await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
                await asyncio.sleep(self._fault.slow / 10)
        if limit is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self._hang_up(scope)
        await asyncio.sleep(0.02)  # the server notices the closed connection, and does not answer in its own words
