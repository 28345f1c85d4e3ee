"""Costs of a request: asked of the app's own functions, which may read the body and eat nothing of it."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from ratelimit import Limiter, MemoryStore, Quota, RateLimitMiddleware, RateLimitSettings, limit
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers
from tests.support.raw import Call


async def items(request: Request) -> int:
    return len((await request.json())["items"])


def by_header(connection: HTTPConnection) -> int:
    return int(connection.headers.get("x-cost", "1"))


async def echo(request: Request) -> Response:
    return JSONResponse({"got": len(await request.body())})


def backlog(**more: Any) -> dict[str, Any]:
    quota = {"name": "items", "limit": 10, "period": "day", "per": "org", "unit": "items", "cost": items, **more}
    return {"quotas": [quota], "routes": [Route("/", echo, methods=["GET", "POST"])]}


def body(count: int) -> bytes:
    return json.dumps({"items": list(range(count))}).encode()


def test_the_body_is_counted_and_not_eaten(limited: Callable[..., TestClient]) -> None:
    """The app reads the same bytes as if nobody had, and the backlog rises by what is in them."""
    client = limited(**backlog())
    for count, status in ((6, 200), (5, 403), (4, 200), (1, 403), (0, 200)):
        answer = client.post("/", content=body(count))
        assert answer.status_code == status
        if status == 200:
            assert answer.json() == {"got": len(body(count))}


async def test_a_body_in_pieces_that_is_read_in_part(clock: ManualClock) -> None:
    """What the function did not read is still there, after what it did."""

    async def first_piece(request: Request) -> int:
        return len(await anext(aiter(request.stream())))

    quota = Quota(name="bytes", limit=100, per="org", cost=first_piece)
    limiter = Limiter(RateLimitSettings(quotas=[quota]), MemoryStore(clock=clock), clock)
    middleware = [Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)]
    app = Starlette(routes=[Route("/", echo, methods=["POST"])], middleware=middleware)
    call = Call(app, method="POST", headers={"x-org": "o"})
    pieces = [{"body": b"x" * n, "more_body": n < 30} for n in (10, 20, 30)]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", **pieces.pop(0)}

    call._receive = receive  # type: ignore[method-assign]
    await call.run()
    assert json.loads(call.body) == {"got": 60}
    assert (await limiter.usage(by_headers(HTTPConnection({"type": "http", "headers": [(b"x-org", b"o")]}))))[
        0
    ].used == 10


def test_two_functions_read_the_same_body(limited: Callable[..., TestClient]) -> None:
    """One of them streams it, the other parses it, and the app gets it all the same."""

    async def size(request: Request) -> int:
        return sum([len(piece) async for piece in request.stream()])

    policies = [
        {"name": "bytes", "limit": 1000, "per": "org", "cost": size},
        {"name": "items", "limit": 10, "per": "org", "cost": items},
    ]
    client = limited(quotas=policies, routes=[Route("/", echo, methods=["POST"])])
    assert client.post("/", content=body(9)).json() == {"got": len(body(9))}
    assert client.post("/", content=body(2)).json()["policy"] == "items"


@pytest.mark.parametrize("returned", [-1, 1.5, True, None, "2", 10**15])
def test_what_is_no_cost_is_logged_and_counts_as_one(
    limited: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, returned: Any
) -> None:
    """The request is served, and who wrote the function is told."""
    client = limited(**backlog(cost=lambda _: returned, limit=2))
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 403]
    assert f"cost of policy 'items': must be an integer between 0 and {10**15 - 1}, got {returned!r}" in caplog.messages


def test_a_function_that_fails_leaves_the_request_to_the_app(
    limited: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    """A body that is no JSON is the app's to refuse; the limiter answers neither 400 nor 500."""
    client = limited(**backlog(limit=2))
    with caplog.at_level(logging.ERROR):
        assert [client.post("/", content=b"{no json").status_code for _ in range(3)] == [200, 200, 403]
    assert caplog.messages[0] == "cost of policy 'items': the function failed; the request costs 1"


def test_a_function_that_fails_leaves_nothing_in_a_level(limited: Callable[..., TestClient]) -> None:
    """What nobody would ever bring down again is not raised by a bad request."""
    client = limited(**backlog(period=None, limit=2))
    assert [client.post("/", content=b"{no json").status_code for _ in range(5)] == [200] * 5
    assert client.post("/", content=body(2)).status_code == 200


async def test_a_client_that_leaves_while_its_body_is_read(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no failure of the function, and the app hears of it."""
    heard = list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append((await receive())["type"])

    quota = Quota(name="items", limit=10, per="org", cost=items)
    limiter = Limiter(RateLimitSettings(quotas=[quota]), MemoryStore(clock=clock), clock)
    call = Call(RateLimitMiddleware(app, limiter=limiter, identify=by_headers), headers={"x-org": "o"})
    call._body.clear()
    call.leave()
    await call.run()
    assert heard == ["http.disconnect"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_decorator_takes_a_function_too(clock: ManualClock) -> None:
    """`@limit(cost=…)` sees the request of FastAPI, and a WebSocket's handshake."""
    app = FastAPI()

    @app.get("/")
    @limit("10/minute", per="token", cost=by_header)
    async def index() -> str:
        return "ok"

    @limit("2/minute", per="token", cost=by_header)
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    app.router.routes.append(WebSocketRoute("/socket", socket))
    limiter = Limiter(RateLimitSettings(), MemoryStore(clock=clock), clock)
    app.add_middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)
    with TestClient(app, headers={"x-token": "t"}) as client:
        left = [client.get("/", headers={"x-cost": str(cost)}).headers["x-ratelimit-remaining"] for cost in (3, 0, 5)]
        assert left == ["7", "7", "2"]
        with client.websocket_connect("/socket", headers={"x-cost": "2"}):
            pass
        with pytest.raises(WebSocketDenialResponse) as refused:
            client.websocket_connect("/socket").__enter__()
        assert refused.value.status_code == 429


async def test_outside_http_the_caller_says_what_it_costs(clock: ManualClock) -> None:
    """`check(cost=…)` is the cost of policies that would ask a request."""
    settings = RateLimitSettings(quotas=[Quota(name="items", limit=10, per="org", cost=items)])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    who = by_headers(HTTPConnection({"type": "http", "headers": [(b"x-org", b"o")]}))
    assert (await limiter.check(who, cost=7)).limits[0].remaining == 3
