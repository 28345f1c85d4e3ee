"""Apps under test: limited twice on purpose, between two checkers of the ASGI protocol."""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

import pytest
import starlette
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratelimit import Identity, Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings
from ratelimit.testing import ManualClock

STARLETTE = tuple(int(part) for part in starlette.__version__.split(".")[:2])

needs_client_address = pytest.mark.skipif(
    "client" not in signature(TestClient).parameters, reason="this Starlette's test client has no address of its own"
)

_BEFORE_ACCEPT = {"websocket.accept", "websocket.close", "websocket.http.response.start"}


class Checked:
    """Fails on any message that the ASGI specification does not allow the app to send."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        response: dict[str, Any] = {"state": "new", "sent": 0}

        async def checked(message: Message) -> None:
            _check_http(scope, response, message)
            await send(message)

        await self.app(scope, receive, checked)
        assert response["state"] == "done", "the response was never finished"


def _check_http(scope: Scope, response: dict[str, Any], message: Message) -> None:
    if message["type"] == "http.response.start":
        assert response["state"] == "new", "a second response start"
        assert 200 <= message["status"] < 600
        _check_headers(list(message["headers"]))
        response |= {"state": "body", "headers": dict(message["headers"]), "status": message["status"]}
    else:
        assert message["type"] == "http.response.body", message["type"]
        assert response["state"] == "body", "a body before its start or after its end"
        response["sent"] += len(message.get("body", b""))
        if not message.get("more_body", False):
            response["state"] = "done"
            length = response["headers"].get(b"content-length")
            if length is not None and scope["method"] != "HEAD" and response["status"] not in (204, 304):
                assert int(length) == response["sent"], "Content-Length does not fit the body"


def _check_headers(headers: list[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    for name, value in headers:
        assert isinstance(name, bytes)
        assert isinstance(value, bytes)
        assert name == name.lower()
        assert not {b"\r", b"\n", b"\0"} & {bytes([byte]) for byte in value}
    for name in names:
        assert name == b"set-cookie" or names.count(name) == 1, f"{name!r} appears twice"


def by_headers(connection: HTTPConnection) -> Identity:
    """Identify the caller by plain headers, which the test sets."""
    headers = connection.headers
    return Identity(
        token=headers.get("x-token"),
        org=headers.get("x-org"),
        plan=headers.get("x-plan"),
        ip=headers.get("x-ip"),
        dimensions={"teamspace": headers["x-teamspace"]} if "x-teamspace" in headers else {},
        rates={"token": headers["x-rate"]} if "x-rate" in headers else {},
    )


async def ok(request: Request) -> Response:
    return JSONResponse({"path": request.url.path})


def twice(limiter: Limiter, identify: Callable[[HTTPConnection], Any] = by_headers) -> list[Middleware]:
    """Return the limiter mounted twice, with a checker on both sides."""
    return [
        Middleware(Checked),
        Middleware(RateLimitMiddleware, limiter=limiter, identify=identify),
        Middleware(RateLimitMiddleware, limiter=limiter, identify=identify),
        Middleware(Checked),
    ]


def limiter_for(settings: Mapping[str, Any], clock: ManualClock) -> Limiter:
    return Limiter(
        RateLimitSettings.model_validate(settings),
        store=MemoryStore(clock=clock),
        clock=clock,
    )


def client_for(
    clock: ManualClock,
    *,
    routes: Iterable[Any] = (),
    app: FastAPI | None = None,
    identify: Callable[[HTTPConnection], Any] = by_headers,
    **settings: Any,
) -> TestClient:
    """Return a client of an app with these settings; by default it has one route, `/`, for every method."""
    middleware = twice(limiter_for(settings, clock), identify)
    if app is None:
        every = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        served: Any = Starlette(routes=list(routes) or [Route("/", ok, methods=every)], middleware=middleware)
    else:
        app.user_middleware[:0] = middleware
        served = app
    return TestClient(served, headers={"x-token": "t1", "x-org": "o1"}, raise_server_exceptions=True)
