"""Known pitfalls: the faults of other rate limiters that their users report most, one test each.

tests/unit/asgi/routing/test_endpoint_matcher.py, test_answers.py and test_live_server.py also test limits that vanish
on included routers, path parameters with a counter each, and keys without an expiry.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from ratelimit import (
    ConfigurationError,
    Limit,
    Limiter,
    MemoryStore,
    RateLimitMiddleware,
    RateLimitSettings,
    exempt,
    limit,
)
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers, needs_client_address, ok
from tests.support.raw_http import Call

Limited = Callable[..., TestClient]
TOKEN = {"name": "token", "rate": "100/minute", "per": ["token"]}


def left(response: Any) -> int:
    return int(response.headers["x-ratelimit-remaining"])


def test_limits_hold_on_included_routers(limited: Limited) -> None:
    """Two included routers with the same path below their prefixes are limited, each with a counter of its own."""
    users, orders = APIRouter(prefix="/users"), APIRouter(prefix="/orders")

    @users.get("/list")
    @limit("3/minute", per="token")
    async def list_users() -> str:
        return "users"

    @orders.get("/list")
    @limit("3/minute", per="token")
    async def list_orders() -> str:
        return "orders"

    version = APIRouter(prefix="/v1")
    version.include_router(users)
    version.include_router(orders)
    app = FastAPI()
    app.include_router(version, prefix="/api")
    client = limited(app=app)
    assert [client.get("/api/v1/users/list").status_code for _ in range(4)] == [200] * 3 + [429]
    assert left(client.get("/api/v1/orders/list")) == 2


def test_values_of_path_parameters_share_one_counter(limited: Limited) -> None:
    """A limit per endpoint counts all values of a path parameter together."""
    routes = [Route("/runs/{id}", ok)]
    client = limited(limits=[{"name": "e", "rate": "5/minute", "per": ["endpoint"]}], routes=routes)
    assert [client.get(f"/runs/{n}").status_code for n in range(7)] == [200] * 5 + [429] * 2


def test_decorated_endpoints_need_no_request_parameter(limited: Limited) -> None:
    """Decorated endpoints keep their signature, sync and async, with and without parameters."""
    app = FastAPI()

    @app.get("/nothing")
    @limit("3/minute", per="token")
    async def nothing() -> str:
        return "async"

    @app.get("/sync/{n}")
    @limit("3/minute", per="token")
    def plain(n: int, q: str = "q") -> str:
        return f"{n}{q}"

    client = limited(app=app)
    assert (client.get("/nothing").json(), client.get("/sync/4?q=x").json()) == ("async", "4x")
    assert app.openapi()["paths"]["/sync/{n}"]["get"]["parameters"][0]["name"] == "n"


def test_headers_are_not_repeated_when_two_limits_apply(limited: Limited) -> None:
    """Every field appears once, and describes the tighter limit."""
    app = FastAPI()

    @app.get("/x")
    @limit("3/minute", per="token")
    @limit("50/hour", per="token")
    async def x() -> str:
        return "x"

    client = limited(app=app, limits=[TOKEN])
    response = client.get("/x")
    for name in ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-scope"):
        assert len(response.headers.get_list(name)) == 1
    assert response.headers["x-ratelimit-limit"] == "3"


async def test_streaming_is_not_buffered() -> None:
    """The first chunk is sent before the second one exists."""
    app, gate, chunks = FastAPI(), asyncio.Event(), list[bytes]()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            await gate.wait()
            yield b"second"

        return StreamingResponse(body())

    async def send(message: Any) -> None:
        if message.get("body"):
            chunks.append(message["body"])
            gate.set()  # The app goes on only when a chunk has arrived.

    async def receive() -> Any:
        await asyncio.Event().wait()

    app.add_middleware(RateLimitMiddleware, settings=RateLimitSettings.model_validate({"limits": [TOKEN]}))
    scope = {"type": "http", "method": "GET", "path": "/stream", "query_string": b"", "headers": []}
    await asyncio.wait_for(app(scope, receive, send), 10)
    assert chunks == [b"first", b"second"]


def test_a_limit_above_the_route_decorator_works(limited: Limited) -> None:
    """The order of decorators does not matter: the limit is read from the endpoint, not called."""
    app = FastAPI()

    @limit("2/minute", per="token")
    @app.get("/above")
    async def above() -> str:
        return "above"

    @exempt
    @app.get("/free")
    async def free() -> str:
        return "free"

    client = limited(app=app, limits=[TOKEN])
    assert [client.get("/above").status_code for _ in range(3)] == [200, 200, 429]
    assert "x-ratelimit-limit" not in client.get("/free").headers


@pytest.mark.parametrize(
    "wrong", [None, Route("/x", ok), FastAPI(), APIRouter(), "GET /x", 5], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize("decorator", [limit("1/minute"), exempt], ids=["limit", "exempt"])
def test_a_decorator_that_cannot_work_raises(decorator: Any, wrong: Any) -> None:
    """On an object that is not an endpoint, such as the result of a decorator that returns None, it raises at once."""
    with pytest.raises(ConfigurationError, match=type(wrong).__name__):
        decorator(wrong)


@needs_client_address
def test_clients_behind_one_proxy_do_not_share_a_counter(limited: Limited) -> None:
    """If the proxy is trusted, the default identify distinguishes its clients."""
    app = FastAPI()
    app.get("/")(lambda: "ok")
    settings = RateLimitSettings.model_validate(
        {"limits": [{"name": "ip", "rate": "1/minute", "per": "ip"}], "trusted_proxies": ["10.0.0.0/8"]}
    )
    app.add_middleware(RateLimitMiddleware, settings=settings)
    with TestClient(app, client=("10.1.2.3", 1)) as proxy:
        statuses = [proxy.get("/", headers={"x-forwarded-for": f"203.0.113.{n}"}).status_code for n in (1, 2, 1)]
    assert statuses == [200, 200, 429]


@needs_client_address
def test_a_forged_forwarded_for_is_ignored() -> None:
    """A client that invents addresses is counted by its own address."""
    app = FastAPI()
    app.get("/")(lambda: "ok")
    settings = RateLimitSettings.model_validate(
        {"limits": [{"name": "ip", "rate": "2/minute", "per": "ip"}], "trusted_proxies": ["10.0.0.0/8"]}
    )
    app.add_middleware(RateLimitMiddleware, settings=settings)
    with TestClient(app, client=("203.0.113.9", 1)) as client:
        statuses = [client.get("/", headers={"x-forwarded-for": f"198.51.100.{n}"}).status_code for n in range(4)]
    assert statuses == [200, 200, 429, 429]


def test_headers_that_the_app_sets_later_are_kept(limited: Limited) -> None:
    """The middleware adds fields to a response, and neither removes nor changes any."""
    app = FastAPI()

    @app.get("/own")
    async def own(response: Response) -> str:
        response.headers["cache-control"] = "max-age=60"
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return "own"

    response = limited(app=app, limits=[TOKEN]).get("/own")
    assert response.headers["cache-control"] == "max-age=60"
    assert len(response.headers.get_list("set-cookie")) == 2


@pytest.mark.parametrize("method", ["post", "Post", "POST"])
async def test_a_method_in_lower_case_is_counted(clock: ManualClock, method: str) -> None:
    """Uvicorn hands methods on as they came, and a mounted app may convert them: `methods=["POST"]` counts them all."""
    settings = RateLimitSettings(limits=[Limit(name="writes", rate="1/minute", per="token", methods="POST")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["method"].upper())(scope, receive, send)

    app = RateLimitMiddleware(Starlette(routes=[Mount("/", served)]), limiter=limiter, identify=by_headers)
    calls = [await Call(app, "/x", method=method, headers={"x-token": "t"}).run() for _ in range(2)]
    assert [call.status for call in calls] == [200, 429]


async def test_an_unknown_method_is_counted_by_limits_without_methods(clock: ManualClock) -> None:
    """A verb that no route declares passes no limit that holds for all methods; all such verbs share one counter."""
    settings = RateLimitSettings(limits=[Limit(name="all", rate="2/minute", per=["token", "method"])])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    app = RateLimitMiddleware(
        Starlette(routes=[Mount("/", PlainTextResponse("ok"))]), limiter=limiter, identify=by_headers
    )
    calls = [await Call(app, "/x", method=f"VERB{n}", headers={"x-token": "t"}).run() for n in range(3)]
    assert [call.status for call in calls] == [200, 200, 429]
