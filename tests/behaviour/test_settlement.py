"""The promise: a cost that is known only later is settled once, in the windows and periods that were charged."""

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
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers
from tests.support.raw_http import Call

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
    """Return the usage of each policy."""
    charges = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/")).charges(WHO)
    reply = await store.submit(StoreRequest(charges, Operation.USAGE))
    return {charge.limit.policy: used for charge, (used, _, _) in zip(charges, reply.readings, strict=True)}


async def test_an_estimate_is_settled_in_all_policies_at_once(store: Store, clock: ManualClock) -> None:
    """A cost is settled by unit or by policy; the same total twice counts once, and another total corrects it."""
    limiter = limiter_with(store, clock)
    decision = await limiter.check(WHO)
    assert await used(limiter, store) == {"rate": 1, "token-tokens": 50, "org-tokens": 50, "tokens-month": 50}
    for _ in range(2):
        await asyncio.gather(*(decision.settle({"tokens": 812}) for _ in range(5)))
    assert await used(limiter, store) == {"rate": 1, "token-tokens": 812, "org-tokens": 812, "tokens-month": 812}
    await decision.settle({"tokens": 7, "tokens-month": 9, "rate": 0})
    assert await used(limiter, store) == {"rate": 0, "token-tokens": 7, "org-tokens": 7, "tokens-month": 9}


async def test_recorded_costs_are_settled_at_the_end(store: Store, clock: ManualClock) -> None:
    """`spend` adds up, from any thread, and the sum replaces the estimate when the request ends."""
    limiter = limiter_with(store, clock)
    decision = await limiter.check(WHO)
    for amount in (100, 20, 3):
        await asyncio.to_thread(decision.spend, {"tokens": amount})
    assert (await used(limiter, store))["org-tokens"] == 50
    for _ in range(2):
        await limiter.finish(decision)
    assert await used(limiter, store) == {"rate": 1, "token-tokens": 123, "org-tokens": 123, "tokens-month": 123}


async def test_recorded_costs_add_to_a_settled_total(store: Store, clock: ManualClock) -> None:
    """A settled total replaces the costs that were recorded before it; costs recorded later add to it."""
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
async def test_an_invalid_cost_raises(store: Store, clock: ManualClock, costs: Any) -> None:
    """An amount that is not an integer ≥ 0, or an unknown name, raises and changes nothing."""
    limiter = limiter_with(store, clock)
    decision = await limiter.check(WHO)
    with pytest.raises(
        ConfigurationError, match=r"tokens: must be an integer between 0|bananas: is not a policy or unit"
    ):
        await decision.settle({"rate": 9, **costs})
    with pytest.raises(ConfigurationError):
        decision.spend({"rate": 9, **costs})
    await limiter.finish(decision)
    assert (await used(limiter, store)) == {"rate": 1, "token-tokens": 50, "org-tokens": 50, "tokens-month": 50}


async def test_a_decision_without_charges_settles_nothing(store: Store, clock: ManualClock) -> None:
    """Decisions on refused and unlimited requests accept costs, which change nothing that is stored."""
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


async def test_settling_a_refused_decision_changes_nothing(store: Store, clock: ManualClock) -> None:
    """Settling a refused decision neither counts anything nor gives back what other requests spent."""
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


async def test_many_threads_record_at_once(clock: ManualClock) -> None:
    """No cost that any thread records is lost."""
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


async def test_the_first_threads_to_record_share_a_settlement(clock: ManualClock) -> None:
    """It is made when it is asked for first: also where two threads ask at once, no cost is lost."""
    store = MemoryStore(clock=clock)
    limiter, rounds = limiter_with(store, clock), 1000
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            for _ in range(rounds):
                decision = await limiter.check(WHO)
                for spent in [pool.submit(decision.spend, {"tokens": 1}) for _ in range(2)]:
                    spent.result()
                await limiter.finish(decision)
    finally:
        sys.setswitchinterval(before)
    assert (await used(limiter, store))["tokens-month"] == 2 * rounds


async def test_settlement_within_the_window_that_was_charged(store: Store, clock: ManualClock) -> None:
    """A charge that is settled upwards leaves the window whole, when the estimate would have left it."""
    limit = {"name": "w", "rate": "10/minute", "per": "org", "unit": "tokens"}
    limiter = limiter_with(store, clock, limits=[limit])
    first = await limiter.check(WHO)
    clock.advance(seconds=30)
    await limiter.check(WHO)
    await first.settle({"tokens": 8})
    assert (await limiter.peek(WHO)).limits[0].remaining == 1
    clock.advance(ms=30_001)
    assert (await limiter.peek(WHO)).limits[0].remaining == 9


async def test_settlement_after_the_window_has_passed(store: Store, clock: ManualClock) -> None:
    """Cost above the estimate is counted now, since otherwise it would be free; cost below it gives nothing back."""
    limit = {"name": "w", "rate": "10/second", "per": "org", "unit": "tokens", "cost": 5}
    limiter = limiter_with(store, clock, limits=[limit])
    slow, cheap = await limiter.check(WHO), await limiter.check(WHO)
    clock.advance(seconds=2)
    await limiter.check(WHO)
    await cheap.settle({"tokens": 1})
    assert (await limiter.peek(WHO)).limits[0].remaining == 5
    await slow.settle({"tokens": 9})
    assert (await limiter.peek(WHO)).limits[0].remaining == 1


async def test_settlement_in_the_period_that_was_charged(store: Store, clock: ManualClock) -> None:
    """A request that ends after midnight is settled in the month in which it began."""
    clock.now = round(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1_000_000
    quota = {"name": "q", "limit": 1000, "period": "month", "per": "org", "unit": "tokens", "cost": 10}
    limiter = limiter_with(store, clock, quotas=[quota])
    decision = await limiter.check(WHO)
    clock.advance(seconds=2)
    await limiter.check(WHO)
    await decision.settle({"tokens": 500})
    (usage,) = await limiter.usage(WHO)
    assert (usage.used, usage.last) == (10, 500)


async def test_settled_cost_above_the_limit_refuses_later_requests(store: Store, clock: ManualClock) -> None:
    """Later requests are refused until that cost has left the window, and their `retry_after` is exact."""
    limit = {"name": "w", "rate": "10/minute", "per": "org", "unit": "tokens"}
    limiter = limiter_with(store, clock, limits=[limit])
    await (await limiter.check(WHO)).settle({"tokens": 35})
    refused = await limiter.check(WHO)
    assert not refused.allowed
    clock.advance(seconds=refused.retry_after)
    assert (await limiter.check(WHO)).allowed


class Chat:
    """An app that streams responses of unknown length, each chunk of which has a cost.

    Half of the responses record each chunk, and half settle the sum at the end. `spent` is the actual cost of each
    response that began.
    """

    def __init__(self, limiter: Limiter) -> None:
        self.spent: list[int] = []
        middleware = [Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)]
        self.app = Starlette(routes=[Route("/", self.serve)], middleware=middleware)
        self._chance = random.Random(7)

    async def serve(self, request: HTTPRequest) -> Response:
        chunks = [self._chance.randint(1, 90) for _ in range(self._chance.randint(1, 4))]
        stream = self.recording if self._chance.random() < 0.5 else self.settling
        return StreamingResponse(stream(request.state.ratelimit, chunks))

    async def recording(self, decision: Decision, chunks: list[int]) -> AsyncIterator[bytes]:
        async for tokens in self.chunks(chunks):
            decision.spend({"tokens": tokens})
            yield b"." * tokens

    async def settling(self, decision: Decision, chunks: list[int]) -> AsyncIterator[bytes]:
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
    """Of ten requests, let the client of one close its connection at some moment, and let the server cancel another."""
    if number % 10 in (0, 5):
        for _ in range(chance.randint(0, 60)):
            await asyncio.sleep(0)
        call.leave() if number % 10 else task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_ten_thousand_requests_of_which_a_fifth_do_not_end(
    request: pytest.FixtureRequest, clock: ManualClock, kind: str
) -> None:
    """In every policy the settled sum is the sum of the actual costs, to the token."""
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""
    store = RedisStore(url, clock=clock, timeout=60) if url else MemoryStore(clock=clock)
    async with limiter_with(store, clock) as limiter:
        chat, chance = Chat(limiter), random.Random(11)
        calls = [Call(chat.app, headers=HEADERS, spec=chance.choice(["2.3", "2.4"])) for _ in range(10_000)]
        await asyncio.gather(
            *(leave_sometimes(n, call, asyncio.create_task(call.run()), chance) for n, call in enumerate(calls))
        )
        gc.collect()  # A stream that is not read to its end is closed when it is collected.
        for _ in range(10):
            await asyncio.sleep(0)
        await limiter.enforcer.drain()
        counted = await used(limiter, store)
    assert sum(call.status == 200 for call in calls) >= 8_000
    assert len(chat.spent) <= counted["rate"] <= 10_000
    # Requests that were charged and never began to respond keep their estimate.
    expected = sum(chat.spent) + ESTIMATE * (counted["rate"] - len(chat.spent))
    assert [counted[name] for name in ("token-tokens", "org-tokens", "tokens-month")] == [expected] * 3


async def test_a_refund_is_final(store: Store, clock: ManualClock) -> None:
    """A charge that was refunded because of the response's status is neither settled nor refunded again."""
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
    (settlement,) = decision.settlements
    for _ in range(2):
        await settlement.refund(200)
        await settlement.refund(500)
    await decision.settle({"tokens": 5})
    await limiter.finish(decision)
    assert await used(limiter, store) == {"q": 500}


REFUNDED = {"name": "one", "rate": "1/minute", "per": "token", "refund_on": [401, 403, 500]}


async def denied(request: HTTPRequest) -> Response:
    status = int(request.headers.get("x-status", "200"))
    if status == 500:
        raise RuntimeError
    return PlainTextResponse("", status)


def test_statuses_that_refund_the_charge(limited: Callable[..., TestClient]) -> None:
    """A request that the app turns away, or whose app fails, does not count; other requests do."""
    client = limited(limits=[REFUNDED], quotas=[{"name": "q", "limit": 9, "per": "org"}], routes=[Route("/", denied)])
    for status in (401, 403, 401):
        assert client.get("/", headers={"x-status": str(status)}).status_code == status
    with pytest.raises(RuntimeError):
        client.get("/", headers={"x-status": "500"})
    assert client.get("/", headers={"x-status": "404"}).status_code == 404
    assert client.get("/").status_code == 429


async def test_the_status_of_a_response_that_has_begun_counts(clock: ManualClock) -> None:
    """A failure after the start of a 200 is not refunded as a 500, and neither is a cancelled request."""

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


def test_an_accepted_websocket_is_not_a_403(limited: Callable[..., TestClient]) -> None:
    """Only a WebSocket that is closed before it was accepted counts as a 403."""

    async def serve(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(1008)

    client = limited(limits=[REFUNDED], routes=[WebSocketRoute("/", serve), Route("/http", denied)])
    with client.websocket_connect("/") as socket, pytest.raises(WebSocketDisconnect):
        socket.receive_text()
    assert client.get("/http").status_code == 429


def test_a_websocket_that_is_closed_before_it_was_accepted(limited: Callable[..., TestClient]) -> None:
    """To its client such a handshake is a 403, and it does not count."""

    async def turn_away(socket: WebSocket) -> None:
        await socket.close(1008)

    client = limited(limits=[REFUNDED], routes=[WebSocketRoute("/", turn_away)])
    for _ in range(3):
        with pytest.raises(WebSocketDisconnect) as closed:
            client.websocket_connect("/").__enter__()
        assert closed.value.code == 1008


def test_nested_limiters_settle_their_own_policies(limited: Callable[..., TestClient]) -> None:
    """Costs of policies of either limiter may be recorded; a name that neither knows raises."""

    async def respond(request: HTTPRequest) -> Response:
        decision: Decision = request.state.ratelimit
        decision.spend({"tokens": 7})
        await decision.settle({"outer": 3})
        with pytest.raises(ConfigurationError, match="bananas: is not a policy or unit"):
            decision.spend({"bananas": 1})
        return PlainTextResponse(str(len(decision.settlements)))

    tokens = {"name": "inner", "rate": "10/minute", "per": "token", "unit": "tokens"}
    inner = limited(limits=[tokens], routes=[Route("/", respond)])
    outer = {"name": "outer", "rate": "10/minute", "per": "token"}
    client = limited(limits=[outer], routes=[Route("/{path:path}", inner.app, methods=["GET"])])
    assert client.get("/").text == "2"
    assert client.get("/").headers["x-ratelimit-limit"] == "10"
    assert client.get("/").status_code == 429


def test_a_refusal_by_a_limiter_refunds_nothing(limited: Callable[..., TestClient], clock: ManualClock) -> None:
    """A quota's 403 is not the app's response: the charges of an outer limiter stay."""
    outer = [{**REFUNDED, "rate": "2/minute", "refund_on": [403]}]
    inner = limited(quotas=[{"name": "q", "limit": 1, "period": "day", "per": "org"}])
    client = limited(limits=outer, routes=[Route("/{path:path}", inner.app, methods=["GET"])])
    assert [client.get("/").status_code for _ in range(3)] == [200, 403, 429]
