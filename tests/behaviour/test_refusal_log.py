"""The promise: a refusal leaves a trace that a caller can report, and the person on call can find."""

import logging
import re
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ratelimit import Identity, Limit, Limiter, RateLimitMiddleware, RateLimitSettings, ResponseStyle
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers, ok
from tests.support.servers import serving


def client_of(limiter: Limiter, **options: Any) -> httpx.AsyncClient:
    middleware = [Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers, **options)]
    app = Starlette(routes=[Route("/runs/{id}", ok)], middleware=middleware)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers={"x-token": "secret"})


def settings_of(style: ResponseStyle) -> RateLimitSettings:
    return RateLimitSettings(limits=[Limit(name="token", rate="1/minute", per="token")], response=style)


@pytest.mark.parametrize("own_id", ["req-17.a", None, "two words", "x" * 129])
async def test_the_problem_and_the_log_have_the_same_id(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture, own_id: str | None
) -> None:
    """That which the request has, or a new one."""
    limiter = Limiter(settings_of(ResponseStyle()), store, clock)
    headers = {} if own_id is None else {"x-request-id": own_id}
    with caplog.at_level(logging.INFO, "ratelimit"):
        async with client_of(limiter) as client:
            await client.get("/runs/1", headers=headers)
            refused = await client.get("/runs/2", headers=headers)
    instance = refused.json()["instance"]
    assert instance == own_id if own_id == "req-17.a" else re.fullmatch("[0-9a-f]{16}", instance)
    (line,) = [line for line in caplog.messages if line.startswith("refused")]
    assert line.startswith("refused by token (429): scope token, GET /runs/{id}, token#")
    assert line.endswith(f"request {instance}")


@pytest.mark.parametrize(
    ("style", "options"),
    [
        (ResponseStyle(members="documented"), {}),
        (ResponseStyle(problem="legacy"), {}),
        (ResponseStyle(), {"on_refused": lambda *_: PlainTextResponse("no", 429)}),
    ],
)
async def test_an_answer_without_a_place_for_it_has_a_header(
    store: Store, clock: ManualClock, style: ResponseStyle, options: dict[str, Any]
) -> None:
    """`X-Request-ID`, with the request's own id or a new one; an admitted answer has none."""
    limiter = Limiter(settings_of(style), store, clock)
    async with client_of(limiter, **options) as client:
        admitted = await client.get("/runs/1", headers={"x-request-id": "mine"})
        refused = await client.get("/runs/1", headers={"x-request-id": "mine"})
    assert "x-request-id" not in admitted.headers
    assert refused.headers["x-request-id"] == "mine"
    assert "instance" not in refused.text


def test_a_refusal_is_seen_under_the_default_logging_of_a_server(redis_url: str) -> None:
    """As a summary by policy, without any logging of the app's own."""
    settings = settings_of(ResponseStyle()).model_copy(update={"store": redis_url})
    environment = {"RATELIMIT": settings.model_dump_json()}
    with serving("uvicorn", "tests.support.apps:app", workers=1, **environment) as server:
        statuses = [httpx.get(server.url, headers={"x-token": "t"}).status_code for _ in range(4)]
        assert statuses == [200, 429, 429, 429]
        assert "policy token: 1 refused, 1 caller, token#" in server.log


async def test_the_last_summary_is_written_at_the_end(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that stops within ten seconds loses none."""
    async with Limiter(settings_of(ResponseStyle()), store, clock) as limiter:
        for _ in range(4):
            await limiter.check(Identity(token="t"))
        assert len(caplog.messages) == 1
    assert caplog.messages[1].startswith("policy token: 2 refused, 1 caller, token#")


async def test_a_path_cannot_break_a_line(store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """What callers choose is escaped in the log."""
    with caplog.at_level(logging.INFO, "ratelimit"):
        async with Limiter(settings_of(ResponseStyle()), store, clock) as limiter:
            for _ in range(2):
                await limiter.check(Identity(token="t"), endpoint="/a\nWARNING forged\x1b[2J")
    assert all(line.isprintable() for line in caplog.messages)
