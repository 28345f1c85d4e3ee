"""Request costs: the app's own functions tell them, and may read the body, which the app still receives."""

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
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocket

from ratelimit import Identity, Limiter, MemoryStore, Quota, RateLimitMiddleware, RateLimitSettings, limit
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers


async def items(request: Request) -> int:
    return len((await request.json())["items"])


def by_header(connection: HTTPConnection) -> int:
    return int(connection.headers.get("x-cost", "1"))


async def echo(request: Request) -> Response:
    return JSONResponse({"got": len(await request.body())})


def backlog(**more: Any) -> dict[str, Any]:
    quota = {"name": "items", "limit": 10, "period": "day", "per": "org", "unit": "items", "cost": items, **more}
    return {"quotas": [quota], "routes": [Route("/", echo, methods=["GET", "POST"])]}


async def exchange(app: ASGIApp, messages: list[Message]) -> list[Message]:
    """Send a POST of the organization `o` into an app, in these messages, and return those that the app sent."""
    sent: list[Message] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "root_path": "",
        "client": None,
        "headers": [(b"x-org", b"o")],
    }

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def body(count: int) -> bytes:
    return json.dumps({"items": list(range(count))}).encode()


def test_a_cost_function_reads_the_body_and_leaves_it(limited: Callable[..., TestClient]) -> None:
    """The app receives the whole body, and the quota is charged what the function read in it."""
    client = limited(**backlog())
    for count, status in ((6, 200), (5, 403), (4, 200), (1, 403), (0, 200)):
        answer = client.post("/", content=body(count))
        assert answer.status_code == status
        if status == 200:
            assert answer.json() == {"got": len(body(count))}


async def test_a_body_in_pieces_may_be_read_in_part(clock: ManualClock) -> None:
    """The app receives the pieces that the function read and then the others."""

    async def first_piece(request: Request) -> int:
        return len(await anext(aiter(request.stream())))

    quota = Quota(name="bytes", limit=100, per="org", cost=first_piece)
    limiter = Limiter(RateLimitSettings(quotas=[quota]), MemoryStore(clock=clock), clock)
    middleware = [Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)]
    app = Starlette(routes=[Route("/", echo, methods=["POST"])], middleware=middleware)
    pieces: list[Message] = [{"type": "http.request", "body": b"x" * n, "more_body": n < 30} for n in (10, 20, 30)]
    sent = await exchange(app, pieces)
    assert json.loads(sent[-1]["body"]) == {"got": 60}
    (usage,) = await limiter.usage(Identity(org="o"))
    assert usage.used == 10


def test_two_functions_read_the_same_body(limited: Callable[..., TestClient]) -> None:
    """One function streams it, the other parses it, and the app still receives it."""

    async def size(request: Request) -> int:
        return sum([len(piece) async for piece in request.stream()])

    policies = [
        {"name": "bytes", "limit": 1000, "per": "org", "cost": size},
        {"name": "items", "limit": 10, "per": "org", "cost": items},
    ]
    client = limited(quotas=policies, routes=[Route("/", echo, methods=["POST"])])
    assert client.post("/", content=body(9)).json() == {"got": len(body(9))}
    assert client.post("/", content=body(2)).json()["policy"] == "items"


@pytest.mark.parametrize(
    ("returned", "shown"), [(-1, "-1"), (True, "True"), (None, "NoneType"), ("2", "str"), (10**15, f"{10**15}")]
)
def test_a_value_that_is_no_cost_is_logged_and_counts_as_one(
    limited: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, returned: Any, shown: str
) -> None:
    """The request is served, and the log names the policy and the number; of anything else its type alone."""
    client = limited(**backlog(cost=lambda _: returned, limit=2))
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 403]
    assert (
        f"cost of policy 'items': must be a number between 0 and {10**15 - 1}, got {shown} [RL502]" in caplog.messages
    )


def test_a_function_that_fails_leaves_the_request_to_the_app(
    limited: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    """Whether a body that is not JSON is refused is for the app to decide; the limiter answers neither 400 nor 500.

    The log names the error and its line, and shows nothing of the body.
    """
    client = limited(**backlog(limit=2))
    with caplog.at_level(logging.ERROR):
        assert [client.post("/", content=b"{no json").status_code for _ in range(3)] == [200, 200, 403]
    assert caplog.messages[0].startswith("cost of policy 'items': the function failed (JSONDecodeError in ")
    assert caplog.messages[0].endswith("; the request costs 1 [RL502]")
    assert "no json" not in caplog.text


def test_a_function_that_fails_leaves_nothing_in_a_level(limited: Callable[..., TestClient]) -> None:
    """A level is brought down by the app alone, so a bad request does not raise it."""
    client = limited(**backlog(period=None, limit=2))
    assert [client.post("/", content=b"{no json").status_code for _ in range(5)] == [200] * 5
    assert client.post("/", content=body(2)).status_code == 200


async def test_a_client_that_leaves_while_its_body_is_read(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The app receives the disconnect, and nothing is logged as an error."""
    received = list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append((await receive())["type"])

    quota = Quota(name="items", limit=10, per="org", cost=items)
    limiter = Limiter(RateLimitSettings(quotas=[quota]), MemoryStore(clock=clock), clock)
    await exchange(RateLimitMiddleware(app, limiter=limiter, identify=by_headers), [{"type": "http.disconnect"}])
    assert received == ["http.disconnect"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_decorator_takes_a_function_too(clock: ManualClock) -> None:
    """`@limit(cost=…)` takes the request of FastAPI and the handshake of a WebSocket."""
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


async def test_outside_http_check_takes_the_cost(clock: ManualClock) -> None:
    """`check(cost=…)` is the cost of policies whose cost is a function of the request."""
    settings = RateLimitSettings(quotas=[Quota(name="items", limit=10, per="org", cost=items)])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    assert (await limiter.check(Identity(org="o"), cost=7)).limits[0].remaining == 3


@pytest.mark.parametrize(("returned", "charged"), [(7.5, 8), (10.0, 10), (0.2, 1), (0.0, 0), (7, 7), (0, 0)])
def test_a_float_is_rounded_up(limited: Callable[..., TestClient], returned: float, charged: int) -> None:
    """A cost function may divide: what it returns is charged in whole units, never less than it said."""
    quota = {"name": "q", "limit": 100, "period": "day", "per": "org", "cost": lambda _: returned}
    client = limited(
        quotas=[quota], limits=[{"name": "l", "rate": "100/minute", "per": "org", "cost": lambda _: returned}]
    )
    assert client.get("/", headers={"x-org": "o"}).headers["x-ratelimit-remaining"] == str(100 - charged)


@pytest.mark.parametrize("returned", ["10", None, float("nan"), float("inf"), -1.5, 1e300, True, [3]])
def test_anything_else_is_logged_and_charged_as_1(
    limited: Callable[..., TestClient], returned: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the policy and what its function returned: a number, or else the type."""
    client = limited(limits=[{"name": "odd", "rate": "100/minute", "per": "org", "cost": lambda _: returned}])
    assert client.get("/", headers={"x-org": "o"}).headers["x-ratelimit-remaining"] == "99"
    (line,) = {record.getMessage() for record in caplog.records if record.levelno == logging.ERROR}
    assert "'odd'" in line
    assert (repr(returned) if isinstance(returned, float | int) else type(returned).__name__) in line
