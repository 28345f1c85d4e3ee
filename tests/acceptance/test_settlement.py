"""The promise: a cost that is known only afterwards is settled once, in the windows and periods that were charged."""

import asyncio
import gc
import random
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as HTTPRequest
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from ratelimit import (
    ConfigurationError,
    Decision,
    Identity,
    Limiter,
    MemoryStore,
    RateLimitMiddleware,
    RateLimitSettings,
    RedisStore,
)
from ratelimit.stores import Op, Request, Store
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers
from tests.support.raw import Call

LAYERS: dict[str, Any] = {
    "limits": [
        {"name": "rate", "rate": "100000/minute", "per": "org"},
        {
            "name": "token-tokens",
            "rate": "90000000/minute",
            "per": "token",
            "unit": "tokens",
            "cost": 50,
            "burst": 0.25,
        },
        {"name": "org-tokens", "rate": "90000000/hour", "per": "org", "unit": "tokens", "cost": 50},
    ],
    "quotas": [
        {"name": "tokens-month", "limit": 10**12, "period": "month", "per": "org", "unit": "tokens", "cost": 50}
    ],
}
WHO = Identity(token="t", org="o")
HEADERS = {"x-token": "t", "x-org": "o"}
ESTIMATE = 50


def limiter_with(store: Store, clock: Any, **settings: Any) -> Limiter:
    return Limiter(RateLimitSettings.model_validate(settings or LAYERS), store, clock)


async def used(limiter: Limiter, store: Store) -> dict[str, int]:
    charges = limiter.plan.rules(limiter.plan.endpoint("GET", "/")).charges(WHO)
    answer = await store.submit(Request(charges, Op.USAGE))
    return {charge.terms.policy: told[0] for charge, told in zip(charges, answer.numbers, strict=True)}


async def test_an_estimate_is_settled_in_all_layers_at_once(store: Store, clock: ManualClock) -> None:
    """By unit or by name; said twice it counts once, and said differently it is corrected."""
    limiter = limiter_with(store, clock)
    decision = await limiter.check(WHO)
    assert await used(limiter, store) == {"rate": 1, "token-tokens": 50, "org-tokens": 50, "tokens-month": 50}
    for _ in range(2):
        await asyncio.gather(*(decision.settle({"tokens": 812}) for _ in range(5)))
    assert await used(limiter, store) == {"rate": 1, "token-tokens": 812, "org-tokens": 812, "tokens-month": 812}
    await decision.settle({"tokens": 7, "tokens-month": 9, "rate": 0})
    assert await used(limiter, store) == {"rate": 0, "token-tokens": 7, "org-tokens": 7, "tokens-month": 9}


async def test_what_is_noted_is_settled_at_the_end(store: Store, clock: ManualClock) -> None:
    """`spend` adds up, from any thread, and takes the place of the estimate when the request ends."""
    limiter = limiter_with(store, clock)
    decision = await limiter.check(WHO)
    for amount in (100, 20, 3):
        await asyncio.to_thread(decision.spend, {"tokens": amount})
    assert (await used(limiter, store))["org-tokens"] == 50
    for _ in range(2):
        await limiter.finish(decision)
    assert await used(limiter, store) == {"rate": 1, "token-tokens": 123, "org-tokens": 123, "tokens-month": 123}


async def test_what_is_noted_adds_to_what_was_settled(store: Store, clock: ManualClock) -> None:
    """A total takes the place of what was noted before it, and what is noted after it adds to it."""
    limiter = limiter_with(store, clock)
    decision = await limiter.check(WHO)
    decision.spend({"tokens": 12})
    await decision.settle({"tokens": 800})
    await limiter.finish(decision)
    assert (await used(limiter, store))["org-tokens"] == 800
    decision.spend({"tokens": 12})
    await limiter.finish(decision)
    assert (await used(limiter, store))["org-tokens"] == 812


@pytest.mark.parametrize("costs", [{"tokens": -1}, {"tokens": 1.5}, {"tokens": True}, {"bananas": 1}])
async def test_what_is_no_cost(store: Store, clock: ManualClock, costs: Any) -> None:
    """Negative amounts and unknown names are said, and nothing is changed."""
    limiter = limiter_with(store, clock)
    decision = await limiter.check(WHO)
    with pytest.raises(
        ConfigurationError, match=r"tokens: must be an integer between 0|bananas: is neither a policy nor"
    ):
        await decision.settle({"rate": 9, **costs})
    with pytest.raises(ConfigurationError):
        decision.spend({"rate": 9, **costs})
    await limiter.finish(decision)
    assert (await used(limiter, store)) == {"rate": 1, "token-tokens": 50, "org-tokens": 50, "tokens-month": 50}


async def test_nothing_charged_is_nothing_to_settle(store: Store, clock: ManualClock) -> None:
    """Refused, exempt and not limited requests take what they are told and change nothing."""
    limiter = limiter_with(store, clock, limits=[{"name": "one", "rate": "1/minute", "per": "org"}])
    for decision in (
        await limiter.check(WHO),
        await limiter.check(WHO),
        await limiter.check(Identity(ip="1")),
        Decision(True),
    ):
        decision.spend({"one": 0})
        await decision.settle({"one": 0})
        await limiter.finish(decision)
    assert await used(limiter, store) == {"one": 0}


async def test_what_was_refused_has_charged_nothing(store: Store, clock: ManualClock) -> None:
    """Settling a refused decision neither gives away what others spent nor counts anything."""
    one = {"name": "one", "rate": "1/minute", "per": "org"}
    tokens = {"name": "tokens", "rate": "1000/minute", "per": "token", "unit": "tokens", "cost": 50}
    limiter = limiter_with(store, clock, limits=[tokens, one])
    await (await limiter.check(WHO)).settle({"tokens": 200})
    for actual in (0, 300):
        refused = await limiter.check(WHO)
        assert not refused.allowed
        refused.spend({"tokens": actual})
        await refused.settle({"tokens": actual})
        await limiter.finish(refused)
        assert (await used(limiter, store))["tokens"] == 200


def spend_often(decision: Decision) -> None:
    for _ in range(5000):
        decision.spend({"tokens": 1})


async def test_many_threads_note_at_once(clock: ManualClock) -> None:
    """Nothing that any of them spends is forgotten."""
    store = MemoryStore(clock=clock)
    limiter = limiter_with(store, clock)
    decision = await limiter.check(WHO)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(spend_often, decision)
    finally:
        sys.setswitchinterval(before)
    await limiter.finish(decision)
    assert (await used(limiter, store))["tokens-month"] == 20_000


async def test_the_window_that_was_charged(store: Store, clock: ManualClock) -> None:
    """Settled upwards within it, a request leaves the window with all of its cost when it would have left anyway."""
    limit = {"name": "w", "rate": "10/minute", "per": "org", "unit": "tokens"}
    limiter = limiter_with(store, clock, limits=[limit])
    first = await limiter.check(WHO)
    clock.advance(seconds=30)
    await limiter.check(WHO)
    await first.settle({"tokens": 8})
    assert (await limiter.peek(WHO)).limits[0].remaining == 1
    clock.advance(ms=30_001)
    assert (await limiter.peek(WHO)).limits[0].remaining == 9


async def test_a_window_that_has_passed(store: Store, clock: ManualClock) -> None:
    """What was spent beyond the estimate is counted now, since it would be free otherwise; credits there are void."""
    limit = {"name": "w", "rate": "10/second", "per": "org", "unit": "tokens", "cost": 5}
    limiter = limiter_with(store, clock, limits=[limit])
    slow, cheap = await limiter.check(WHO), await limiter.check(WHO)
    clock.advance(seconds=2)
    await limiter.check(WHO)
    await cheap.settle({"tokens": 1})
    assert (await limiter.peek(WHO)).limits[0].remaining == 5
    await slow.settle({"tokens": 9})
    assert (await limiter.peek(WHO)).limits[0].remaining == 1


async def test_the_period_that_was_charged(store: Store, clock: ManualClock) -> None:
    """A request that runs over midnight is settled in the month in which it began."""
    clock.now = round(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1_000_000
    quota = {"name": "q", "limit": 1000, "period": "month", "per": "org", "unit": "tokens", "cost": 10}
    limiter = limiter_with(store, clock, quotas=[quota])
    decision = await limiter.check(WHO)
    clock.advance(seconds=2)
    await limiter.check(WHO)
    await decision.settle({"tokens": 500})
    (usage,) = await limiter.usage(WHO)
    assert (usage.used, usage.last) == (10, 500)


async def test_what_goes_beyond_the_limit_is_a_debt(store: Store, clock: ManualClock) -> None:
    """It was spent: the next ones are refused until it has left, and the wait that they are told is honest."""
    limit = {"name": "w", "rate": "10/minute", "per": "org", "unit": "tokens"}
    limiter = limiter_with(store, clock, limits=[limit])
    await (await limiter.check(WHO)).settle({"tokens": 35})
    refused = await limiter.check(WHO)
    assert not refused.allowed
    clock.advance(seconds=refused.retry_after)
    assert (await limiter.check(WHO)).allowed


class Chat:
    """An app that streams answers of a length that nobody knows before, and says what they cost chunk by chunk.

    Half of them note it as they go, and half say the sum in the end. `spent` is what each of those that began has
    really spent.
    """

    def __init__(self, limiter: Limiter) -> None:
        self.spent: list[int] = []
        middleware = [Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)]
        self.app = Starlette(routes=[Route("/", self.serve)], middleware=middleware)
        self._chance = random.Random(7)

    async def serve(self, request: HTTPRequest) -> Response:
        chunks = [self._chance.randint(1, 90) for _ in range(self._chance.randint(1, 4))]
        stream = self.noting if self._chance.random() < 0.5 else self.telling
        return StreamingResponse(stream(request.state.ratelimit, chunks))

    async def noting(self, decision: Decision, chunks: list[int]) -> AsyncIterator[bytes]:
        async for tokens in self.chunks(chunks):
            decision.spend({"tokens": tokens})
            yield b"." * tokens

    async def telling(self, decision: Decision, chunks: list[int]) -> AsyncIterator[bytes]:
        sum_ = 0
        try:
            async for tokens in self.chunks(chunks):
                sum_ += tokens
                yield b"." * tokens
        finally:
            await decision.settle({"tokens": sum_})

    async def chunks(self, chunks: list[int]) -> AsyncIterator[int]:
        number = len(self.spent)
        self.spent.append(0)
        for tokens in chunks:
            self.spent[number] += tokens
            yield tokens
            await asyncio.sleep(0)


async def leave_sometimes(number: int, call: Call, task: "asyncio.Task[Call]", chance: random.Random) -> None:
    """Of ten clients one closes its connection at any moment, and one more is cancelled by its server."""
    if number % 10 in (0, 5):
        for _ in range(chance.randint(0, 60)):
            await asyncio.sleep(0)
        call.leave() if number % 10 else task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_ten_thousand_requests_of_which_a_fifth_do_not_end(
    request: pytest.FixtureRequest, clock: ManualClock, kind: str
) -> None:
    """The sum of what is settled is the sum of what was spent, to the token, in every layer."""
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""
    store = RedisStore(url, clock=clock, timeout=60) if url else MemoryStore(clock=clock)
    async with limiter_with(store, clock) as limiter:
        chat, chance = Chat(limiter), random.Random(11)
        calls = [Call(chat.app, headers=HEADERS, spec=chance.choice(["2.3", "2.4"])) for _ in range(10_000)]
        await asyncio.gather(
            *(leave_sometimes(n, call, asyncio.create_task(call.run()), chance) for n, call in enumerate(calls))
        )
        gc.collect()  # A stream that nobody reads to its end is closed when it is collected.
        for _ in range(10):
            await asyncio.sleep(0)
        await limiter._guard.absence.drain()
        counted = await used(limiter, store)
    assert sum(call.status == 200 for call in calls) >= 8_000
    assert len(chat.spent) <= counted["rate"] <= 10_000
    # Those that were charged and never began to answer keep their estimate.
    expected = sum(chat.spent) + ESTIMATE * (counted["rate"] - len(chat.spent))
    assert [counted[name] for name in ("token-tokens", "org-tokens", "tokens-month")] == [expected] * 3


async def test_what_is_given_back_stays_so(store: Store, clock: ManualClock) -> None:
    """A charge that the status of the answer gave back is neither settled nor given back again."""
    quota = {
        "name": "q",
        "limit": 1000,
        "period": "month",
        "per": "org",
        "unit": "tokens",
        "cost": 10,
        "refund_on": 500,
    }
    limiter = limiter_with(store, clock, quotas=[quota])
    await limiter.consume("q", WHO, 500)
    decision = await limiter.check(WHO)
    decision.spend({"tokens": 99})
    (receipt,) = decision.receipts
    for _ in range(2):
        await receipt.refund(200)
        await receipt.refund(500)
    await decision.settle({"tokens": 5})
    await limiter.finish(decision)
    assert await used(limiter, store) == {"q": 500}


REFUNDED = {"name": "one", "rate": "1/minute", "per": "token", "refund_on": [401, 403, 500]}


async def denied(request: HTTPRequest) -> Response:
    status = int(request.headers.get("x-status", "200"))
    if status == 500:
        raise RuntimeError
    return PlainTextResponse("", status)


def test_statuses_that_give_the_charge_back(limited: Callable[..., TestClient]) -> None:
    """A request that the app itself turns away does not count, also where it fails; others do."""
    client = limited(limits=[REFUNDED], quotas=[{"name": "q", "limit": 9, "per": "org"}], routes=[Route("/", denied)])
    for status in (401, 403, 401):
        assert client.get("/", headers={"x-status": str(status)}).status_code == status
    with pytest.raises(RuntimeError):
        client.get("/", headers={"x-status": "500"})
    assert client.get("/", headers={"x-status": "404"}).status_code == 404
    assert client.get("/").status_code == 429


async def test_an_answer_that_has_begun_is_what_counts(clock: ManualClock) -> None:
    """200 and then a failure is no 500, and a request that is cancelled is none either."""

    async def half(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError
        raise asyncio.CancelledError

    for path, error in (("/begun", RuntimeError), ("/cancelled", asyncio.CancelledError)):
        store = MemoryStore(clock=clock)
        limiter = limiter_with(store, clock, limits=[REFUNDED])
        with pytest.raises(error):
            await Call(RateLimitMiddleware(half, limiter=limiter, identify=by_headers), path, headers=HEADERS).run()
        assert await used(limiter, store) == {"one": 1}


def test_an_accepted_websocket_is_no_403_when_it_closes(limited: Callable[..., TestClient]) -> None:
    """Only a close before it was accepted is one."""

    async def serve(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(1008)

    client = limited(limits=[REFUNDED], routes=[WebSocketRoute("/", serve), Route("/http", denied)])
    with client.websocket_connect("/") as socket, pytest.raises(WebSocketDisconnect):
        socket.receive_text()
    assert client.get("/http").status_code == 429


def test_a_websocket_that_the_app_turns_away(limited: Callable[..., TestClient]) -> None:
    """Closed before it is accepted, a handshake is a 403 to its client, and does not count."""

    async def turn_away(socket: WebSocket) -> None:
        await socket.close(1008)

    client = limited(limits=[REFUNDED], routes=[WebSocketRoute("/", turn_away)])
    for _ in range(3):
        with pytest.raises(WebSocketDisconnect) as closed:
            client.websocket_connect("/").__enter__()
        assert closed.value.code == 1008


def test_a_nested_limiter_settles_its_own(limited: Callable[..., TestClient]) -> None:
    """What one of two limiters counts may be spent, what neither knows may not."""

    async def answer(request: HTTPRequest) -> Response:
        decision: Decision = request.state.ratelimit
        decision.spend({"tokens": 7})
        await decision.settle({"outer": 3})
        with pytest.raises(ConfigurationError, match="bananas: is neither"):
            decision.spend({"bananas": 1})
        return PlainTextResponse(str(len(decision.receipts)))

    tokens = {"name": "inner", "rate": "10/minute", "per": "token", "unit": "tokens"}
    inner = limited(limits=[tokens], routes=[Route("/", answer)])
    outer = {"name": "outer", "rate": "10/minute", "per": "token"}
    client = limited(limits=[outer], routes=[Route("/{path:path}", inner.app, methods=["GET"])])
    assert client.get("/").text == "2"
    assert client.get("/").headers["x-ratelimit-limit"] == "10"
    assert client.get("/").status_code == 429


def test_a_refusal_of_our_own_gives_nothing_back(limited: Callable[..., TestClient], clock: ManualClock) -> None:
    """403 by a quota is not the app's answer: what an outer limiter has charged stays charged."""
    outer = [{**REFUNDED, "rate": "2/minute", "refund_on": [403]}]
    inner = limited(quotas=[{"name": "q", "limit": 1, "period": "day", "per": "org"}])
    client = limited(limits=outer, routes=[Route("/{path:path}", inner.app, methods=["GET"])])
    assert [client.get("/").status_code for _ in range(3)] == [200, 403, 429]
