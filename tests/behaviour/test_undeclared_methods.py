"""The promise: a method that no route of a path declares gets its 405, uncounted; what may be served is counted."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from ratelimit import Limit, RateLimitMiddleware, RateLimitSettings

SETTINGS = RateLimitSettings(limits=[Limit(name="all", rate="2/minute")])


async def ok(request: Request) -> Response:
    return PlainTextResponse(request.method)


class Items(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("items")


def fastapi_app() -> FastAPI:
    app, inner, outer = FastAPI(), APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.add_api_route("/x", lambda: "x")
    outer.include_router(inner)
    app.include_router(outer)
    app.add_middleware(RateLimitMiddleware, settings=SETTINGS)
    return app


def starlette_app(*routes: Any, middleware: Any = ()) -> Starlette:
    return Starlette(routes=list(routes), middleware=[Middleware(RateLimitMiddleware, settings=SETTINGS), *middleware])


@pytest.mark.parametrize(
    ("app", "path", "methods"),
    [
        (fastapi_app(), "/outer/inner/x", ["POST", "DELETE", "HEAD", "OPTIONS", "BREW"]),
        (starlette_app(Route("/x", ok)), "/x", ["POST", "PUT", "OPTIONS", "BREW"]),
        (starlette_app(Route("/x", Items)), "/x", ["POST", "OPTIONS", "BREW"]),
        (starlette_app(Mount("/m", routes=[Route("/x", ok)])), "/m/x", ["POST", "OPTIONS"]),
        (starlette_app(Mount("/m", app=Starlette(routes=[Route("/x", Items)]))), "/m/x", ["POST"]),
        (RateLimitMiddleware.wrap(Starlette(routes=[Route("/x", ok)]), settings=SETTINGS), "/x", ["POST"]),
    ],
)
def test_an_undeclared_method_is_not_counted(app: Any, path: str, methods: list[str]) -> None:
    """405 with the framework's `Allow` and no rate-limit header, also for a caller who has nothing left."""
    client = TestClient(app)
    for left in ("1", "0"):
        for method in methods:
            answer = client.request(method, path)
            assert (answer.status_code, "GET" in answer.headers["allow"]) == (405, True)
            assert not [name for name in answer.headers if "ratelimit" in name or name == "retry-after"]
        assert client.get(path).headers["x-ratelimit-remaining"] == left
    assert client.get(path).status_code == 429
    assert client.request(methods[0], path).status_code == 405


def test_head_is_counted_where_it_is_served() -> None:
    """Starlette serves HEAD where it serves GET; FastAPI does only where it is declared."""
    client = TestClient(starlette_app(Route("/x", ok)))
    assert [client.head("/x").status_code for _ in range(3)] == [200, 200, 429]
    client = TestClient(starlette_app(Route("/x", Items)))
    assert [client.head("/x").status_code for _ in range(3)] == [200, 200, 429]


class MethodOverride:
    """As some frameworks have it: another method takes the place of the request's own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = dict(scope.get("headers", ())).get(b"x-http-method-override")
        await self.app({**scope, "method": wanted.decode()} if wanted else scope, receive, send)


class AnyMethod(Route):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def any_method(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("served")(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "path"),
    [
        (starlette_app(Route("/x", ok), middleware=[Middleware(MethodOverride)]), "/x"),
        (starlette_app(Mount("/m", routes=[Route("/x", ok)], middleware=[Middleware(MethodOverride)])), "/m/x"),
        (starlette_app(AnyMethod("/x", ok)), "/x"),
        (starlette_app(Route("/x", ok), Route("/{any}", ok, methods=["DELETE"])), "/x"),
        (starlette_app(Mount("/m", app=any_method)), "/m/x"),
        (
            RateLimitMiddleware.wrap(Starlette(routes=[Route("/x", PlainTextResponse("served"))]), settings=SETTINGS),
            "/x",
        ),
    ],
)
def test_what_may_be_served_is_counted(app: Any, path: str) -> None:
    """No method leads round the limits: through middlewares, other routes, mounts or routes of the app's own."""
    client = TestClient(app, headers={"x-http-method-override": "GET"})
    assert [client.delete(path).status_code for _ in range(3)] == [200, 200, 429]


def test_a_redirect_is_counted() -> None:
    """Whatever its method: the framework answers it without a look at that."""
    client = TestClient(starlette_app(Route("/x", ok)), follow_redirects=False)
    assert [client.post("/x/").status_code for _ in range(3)] == [307, 307, 429]
