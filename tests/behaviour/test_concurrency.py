"""The promise: at most N requests at once, and however a request ends, its permit is released."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request as HTTPRequest
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from ratelimit import (
    Concurrency,
    ConfigurationError,
    Decision,
    Identity,
    Limiter,
    LimitExceeded,
    MemoryStore,
    RateLimitMiddleware,
    RateLimitSettings,
    RedisStore,
    StoreError,
)
from ratelimit.clock import Clock
from ratelimit.errors import StoreTimeout
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from tests.support.asgi import Checked, by_headers, twice
from tests.support.raw_http import Call
from tests.support.redis_server import RedisServer
from tests.support.virtual_time import VirtualLoop, virtually

ACME = {"x-org": "acme"}
WHO = Identity(org="acme")


def limiter_with(store: Store, clock: Clock, limit: int = 5, **options: Any) -> Limiter:
    runs = Concurrency(name="runs", limit=limit, per="org", **options)
    return Limiter(RateLimitSettings(concurrency=[runs]), store, clock)


async def held(limiter: Limiter, store: Store) -> int:
    """Return the number of permits that are held."""
    charges = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/")).charges(WHO)
    return (await store.submit(StoreRequest(charges, Operation.USAGE))).readings[0][0]


class Stage:
    """An app whose requests wait until `go` is set, and then end as their `x-end` header says."""

    def __init__(self, limiter: Limiter) -> None:
        self.go, self.background = asyncio.Event(), asyncio.Event()
        self.inside = 0
        self.app = Starlette(routes=[Route("/", self.serve)], middleware=twice(limiter))

    async def serve(self, request: HTTPRequest) -> Response:
        self.inside += 1
        how = request.headers.get("x-end", "plain")
        if how == "stream":
            return StreamingResponse(self.chunks())
        await self.go.wait()
        if how == "raise":
            raise RuntimeError(how)
        return PlainTextResponse(
            "done", background=BackgroundTask(self.background.wait) if how == "background" else None
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"first"
        await self.go.wait()
        yield b"last"

    def call(self, how: str = "plain", spec: str = "2.3") -> Call:
        return Call(self.app, headers={**ACME, "x-end": how}, spec=spec)


async def until(condition: Any) -> None:
    """Let other tasks run until the condition holds; a real store takes its own time to reply."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - the store sends no event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
async def test_one_more_than_n_is_refused_and_all_permits_are_released(
    store: Store, clock: ManualClock, spec: str
) -> None:
    """Of N + 1 parallel requests exactly one gets 429, and every way of ending releases the permit."""
    limiter = limiter_with(store, clock, limit=10)
    stage = Stage(limiter)
    ends = ["plain", "stream", "raise", "leave", "cancel"] * 2 + ["plain"]
    calls = [stage.call("stream" if how == "leave" else how, spec) for how in ends]
    tasks = [asyncio.create_task(call.run()) for call in calls]

    async def all_decided() -> bool:
        return stage.inside + sum(call.status == 429 for call in calls) == 11

    await until(all_decided)
    assert await held(limiter, store) == 10
    for how, call, task in zip(ends, calls, tasks, strict=True):
        if how == "leave":
            call.leave()
        elif how == "cancel":
            task.cancel()
    stage.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [call.status for call in calls].count(429) == 1
    refused = next(call for call in calls if call.status == 429)
    assert (refused.headers["retry-after"], refused.headers["x-ratelimit-remaining"]) == ("1", "0")
    assert await held(limiter, store) == 0
    assert sum(isinstance(result, RuntimeError) for result in results) == 2


async def test_a_permit_is_held_until_the_last_chunk(store: Store, clock: ManualClock) -> None:
    """A streaming response holds its permit until its last chunk is sent, but not until its background tasks end."""
    limiter = limiter_with(store, clock, limit=1)
    stage = Stage(limiter)
    first = stage.call("stream")
    task = asyncio.create_task(first.run())

    async def streaming() -> bool:
        return b"first" in first.body

    await until(streaming)
    assert (await stage.call().run()).status == 429
    stage.go.set()
    await task
    assert (await stage.call().run()).status == 200


async def test_a_permit_is_held_while_the_last_chunk_is_sent(store: Store, clock: ManualClock) -> None:
    """The permit is held until the server has taken the last chunk."""
    limiter = limiter_with(store, clock, limit=1)
    stage = Stage(limiter)
    stage.go.set()
    seen = list[int]()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.body":
                seen.append(await held(limiter, store))
            await send(message)

        await stage.app(scope, receive, sending)

    await Call(watched, headers=ACME).run()
    assert (seen, await held(limiter, store)) == ([1], 0)


@pytest.mark.parametrize(("hold", "left"), [("response", 0), ("background", 1)])
async def test_background_tasks_hold_the_permit_only_if_configured(
    store: Store, clock: ManualClock, hold: Any, left: int
) -> None:
    """`hold` chooses whether a permit is released after the response or after its background tasks."""
    limiter = limiter_with(store, clock, limit=1, hold=hold)
    stage = Stage(limiter)
    stage.go.set()
    call = stage.call("background")
    task = asyncio.create_task(call.run())

    async def answered() -> bool:
        return b"done" in call.body and await held(limiter, store) == left

    await until(answered)
    assert not task.done()
    stage.background.set()
    await task
    assert await held(limiter, store) == 0


@pytest.mark.parametrize("steps", range(12))
async def test_a_caller_that_is_cancelled_holds_nothing(store: Store, clock: ManualClock, steps: int) -> None:
    """A caller that is cancelled after `steps` steps of the event loop holds no permit and is charged nothing."""
    settings = {
        "limits": [{"name": "rate", "rate": "1000/minute", "per": "org"}],
        "concurrency": [{"name": "runs", "limit": 1000, "per": "org"}],
    }
    limiter = Limiter(RateLimitSettings.model_validate(settings), store, clock)
    await limiter.start()
    tasks = [asyncio.create_task(limiter.check(WHO)) for _ in range(40)]
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [result for result in results if not isinstance(result, BaseException)]
    assert len(kept) >= 20
    await limiter.enforcer.drain()
    charges = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/")).charges(WHO)
    usage = await store.submit(StoreRequest(charges, Operation.USAGE))
    assert [used for used, _, _ in usage.readings] == [len(kept), len(kept)]


async def test_a_permit_that_is_renewed_outlives_its_lease(store: Store, clock: ManualClock) -> None:
    """Renewed three times in each lease, a permit never expires; without renewal it expires with the lease."""
    limiter = limiter_with(store, clock, limit=1, lease=30)
    async with limiter.slot("runs", WHO) as decision:
        (settlement,) = decision.settlements
        for _ in range(30):
            clock.advance(seconds=10)
            assert 0 < seconds_to_renewal(decision) <= 10
            settlement.renew()
            await limiter.enforcer.drain()
            assert await held(limiter, store) == 1
        clock.advance(ms=29_999)
        assert await held(limiter, store) == 1
        clock.advance(ms=1)
        assert await held(limiter, store) == 0
        assert settlement.renews_at is not None
    assert settlement.renews_at is None


def seconds_to_renewal(decision: Decision) -> float:
    """Return the seconds until the permits of a decision are renewed."""
    renews_at = decision.settlements[0].renews_at
    assert renews_at is not None
    return renews_at - asyncio.get_running_loop().time()


async def test_a_permit_for_a_block(store: Store, clock: ManualClock) -> None:
    """`slot` holds one permit for a block, raises if none is free, and releases it also if the block fails."""
    limiter = limiter_with(store, clock, limit=1, lease=0.4)
    with contextlib.suppress(ZeroDivisionError):
        async with limiter.slot("runs", WHO) as decision:
            assert decision.allowed
            with pytest.raises(LimitExceeded, match=r"no permit of 'runs' is free; try again in 0.4 s") as refused:
                await limiter.slot("runs", WHO).__aenter__()
            assert refused.value.decision.retry_after == 0.4
            raise ZeroDivisionError
    assert await held(limiter, store) == 0
    async with limiter.slot("runs", Identity(ip="1.2.3.4")) as decision:
        assert decision.limits == ()


async def test_a_policy_that_gives_no_permits(store: Store, clock: ManualClock) -> None:
    """A policy that is unknown or of another kind raises at once."""
    settings = RateLimitSettings.model_validate({"limits": [{"name": "rate", "rate": "1/minute"}]})
    limiter = Limiter(settings, store, clock)
    with pytest.raises(ConfigurationError, match="policy: 'none' is not one of rate"):
        limiter.slot("none", WHO)
    with pytest.raises(ConfigurationError, match="policy: 'rate' is not a Concurrency and gives no permits"):
        limiter.slot("rate", WHO)


async def test_finishing_twice_releases_once(store: Store, clock: ManualClock) -> None:
    """`finish` may be called again, also concurrently, and other requests keep their permits."""
    limiter = limiter_with(store, clock, limit=3)
    decisions = [await limiter.check(WHO) for _ in range(3)]
    for _ in range(2):
        await asyncio.gather(*(limiter.finish(decisions[0]) for _ in range(5)))
    assert await held(limiter, store) == 2
    refused = [await limiter.check(WHO) for _ in range(2)][1]
    await limiter.finish(refused)
    assert await held(limiter, store) == 3


@pytest.mark.parametrize(("lease", "wait"), [(60, 1.0), (0.25, 0.25)])
async def test_the_wait_of_a_refusal(store: Store, clock: ManualClock, lease: float, wait: float) -> None:
    """A refusal gives a wait of one second, or less if the oldest lease ends sooner."""
    limiter = limiter_with(store, clock, limit=1, lease=lease)
    await limiter.check(WHO)
    refused = await limiter.check(WHO)
    assert (refused.status, refused.retry_after) == (429, wait)
    assert refused.binding is not None
    assert (refused.binding.kind, refused.binding.limit, refused.binding.window) == ("concurrency", 1, 0)


def test_a_websocket_holds_its_permit_until_it_closes(clock: ManualClock) -> None:
    """The handshake acquires the permit, and the end of the connection releases it."""

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        await socket.close()

    limiter = limiter_with(MemoryStore(clock=clock), clock, limit=1)
    app = Starlette(routes=[WebSocketRoute("/", echo)], middleware=twice(limiter))
    with TestClient(app, headers=ACME) as client:
        for _ in range(3):
            with client.websocket_connect("/") as socket:
                with pytest.raises(WebSocketDenialResponse) as refused:
                    client.websocket_connect("/").__enter__()
                assert refused.value.status_code == 429
                socket.send_text("bye")


class UnreliableStore(MemoryStore):
    """A store that can be made unavailable."""

    is_unavailable = False

    async def submit(self, request: StoreRequest) -> StoreReply:
        if self.is_unavailable:
            raise StoreError("unavailable")
        return await super().submit(request)


async def test_permits_of_the_local_fallback_are_released_there(clock: ManualClock) -> None:
    """A permit that the local fallback gave during an outage is released in the local fallback."""
    store = UnreliableStore(clock=clock)
    limiter = limiter_with(store, clock, limit=1)
    store.is_unavailable = True
    first, second = await limiter.check(WHO), await limiter.check(WHO)
    assert (first.allowed, first.degraded, second.allowed) == (True, True, False)
    store.is_unavailable = False
    await limiter.finish(first)
    store.is_unavailable = True
    assert (await limiter.check(WHO)).allowed


class LosingStore(MemoryStore):
    """A store that executes every request, and whose replies can be lost."""

    loses_replies = False

    async def submit(self, request: StoreRequest) -> StoreReply:
        reply = await super().submit(request)
        if self.loses_replies:
            raise StoreTimeout
        return reply


async def test_permits_are_released_after_lost_replies(clock: ManualClock) -> None:
    """Permits that were acquired or released while replies were lost are released when the store replies again."""
    store = LosingStore(clock=clock)
    limiter = limiter_with(store, clock, limit=100)
    early = [await limiter.check(WHO) for _ in range(3)]
    store.loses_replies = True
    lost = [await limiter.check(WHO) for _ in range(4)]
    assert all(decision.degraded for decision in lost)
    for decision in early:
        await limiter.finish(decision)
    store.loses_replies = False
    assert await held(limiter, store) == 6  # Of the three, one was released before the circuit breaker opened.
    await limiter.enforcer.circuit_breaker.probe()
    await limiter.enforcer.drain()
    last = await limiter.check(WHO)
    await limiter.enforcer.drain()
    assert await held(limiter, store) == 1
    await limiter.finish(last)
    await limiter.enforcer.drain()
    assert await held(limiter, store) == 0


class RecordingStore(MemoryStore):
    """A store that counts the renewals that it gets."""

    renewals = 0

    async def submit(self, request: StoreRequest) -> StoreReply:
        self.renewals += request.operation == Operation.RENEW
        return await super().submit(request)


async def test_a_limiter_that_is_closed_renews_no_leases(clock: ManualClock) -> None:
    """A closed limiter renews no leases in that event loop; opened again it does, and in other loops it never stopped."""
    store = RecordingStore(clock=clock)
    limiter = limiter_with(store, clock)
    async with limiter:
        decision = await limiter.check(WHO)
        decision.settlements[0].start_renewal()
        await renew(limiter, decision)
        assert store.renewals == 1
    await renew(limiter, decision)
    assert store.renewals == 1
    await asyncio.to_thread(asyncio.run, renew(limiter, decision))
    assert store.renewals == 2
    async with limiter:
        await renew(limiter, decision)
        assert store.renewals == 3


def test_renewing_by_hand_starts_no_second_timer() -> None:
    """However often `renew` is called, the timer renews a lease three times in its length."""

    async def renewals_in_a_lease(loop: VirtualLoop) -> int:
        store = RecordingStore(clock=loop.clock)
        async with limiter_with(store, loop.clock, lease=30) as limiter, limiter.slot("runs", WHO) as decision:
            for _ in range(5):
                await renew(limiter, decision)
            await asyncio.sleep(30.5)
            return store.renewals - 5

    assert virtually(renewals_in_a_lease) == 3


async def renew(limiter: Limiter, decision: Decision) -> None:
    decision.settlements[0].renew()
    await limiter.enforcer.drain()


async def test_the_shortest_lease_determines_when_to_renew(store: Store, clock: ManualClock) -> None:
    """Of two permits of one request, the one whose lease ends sooner is renewed in time."""
    policies = [Concurrency(name=f"c{lease}", limit=1, per="org", lease=lease) for lease in (60, 3)]
    limiter = Limiter(RateLimitSettings(concurrency=policies), store, clock)
    decision = await limiter.check(WHO)
    decision.settlements[0].start_renewal()
    assert seconds_to_renewal(decision) <= 1
    await limiter.finish(decision)


async def test_a_full_shadow_policy_is_not_settled(store: Store, clock: ManualClock) -> None:
    """A charge that a full shadow policy did not count is neither settled nor refunded."""
    shadow = {"name": "s", "limit": 10, "period": "day", "per": "org", "shadow": True, "cost": 8, "refund_on": 500}
    limiter = Limiter(RateLimitSettings.model_validate({"quotas": [shadow]}), store, clock)
    await limiter.check(WHO)
    over = await limiter.check(WHO)
    assert over.limits[0].retry_after > 0
    await over.settle({"s": 0})
    await over.settlements[0].refund(500)
    assert (await limiter.usage(WHO))[0].used == 8


async def test_the_local_fallback_counts_every_permit(clock: ManualClock) -> None:
    """While the store is unavailable, this worker admits as many requests at once as the limit says, and no more."""
    store = UnreliableStore(clock=clock)
    store.is_unavailable = True
    limiter = limiter_with(store, clock, limit=2)
    assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True, True, False]


async def test_a_renewal_that_was_lost_is_not_kept(clock: ManualClock) -> None:
    """The outbox keeps releases and no renewals: a lost renewal does not revive a permit that was released."""
    store = LosingStore(clock=clock)
    limiter = limiter_with(store, clock, limit=5)
    await limiter.check(WHO)
    store.loses_replies = True
    charges = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/")).charges(WHO)
    await limiter.enforcer.correct(StoreRequest(charges, Operation.RENEW, 7))
    assert limiter.enforcer.circuit_breaker.has_failures
    assert limiter.enforcer.outbox.is_empty


async def test_a_permit_is_released_for_a_caller_that_was_cancelled_before_its_call_failed(
    redis_server: RedisServer, redis_url: str
) -> None:
    """A permit that a failed call may have acquired for a cancelled caller is released as well."""
    store = RedisStore(redis_url, timeout=1)
    async with limiter_with(store, ManualClock(), limit=1, lease=600) as limiter:
        await limiter.finish(await limiter.check(WHO))
        redis_server.pause()
        try:
            task = asyncio.create_task(limiter.check(WHO))
            for _ in range(5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(60):
                while limiter.enforcer.outbox.is_empty:  # noqa: ASYNC110 - it waits for a timeout of the store
                    await asyncio.sleep(0.01)
        finally:
            redis_server.go_on()
        assert not (await limiter.check(Identity(org="other"))).degraded
        await limiter.enforcer.drain()
        assert (await limiter.check(WHO)).allowed


async def test_a_key_with_foreign_content(redis_url: str, clock: ManualClock) -> None:
    """A key that holds something other than permits is overwritten, and the other requests of the batch are decided."""
    store = RedisStore(redis_url, clock=clock, timeout=10)
    async with limiter_with(store, clock, limit=5) as limiter:
        (charge,) = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/")).charges(WHO)
        key = charge.key
        for command in (("RPUSH", "x"), ("SET", "x"), ("SADD", "x"), ("HSET", "x", "y")):
            await store.client.run("DEL", key)
            await store.client.run(command[0], key, *command[1:])
            decisions = await asyncio.gather(*(limiter.check(Identity(org=org)) for org in ("acme", "b", "c")))
            assert [(each.allowed, each.degraded) for each in decisions] == [(True, False)] * 3
            assert await held(limiter, store) == 1


async def test_a_refusal_has_problem_details_of_its_kind(clock: ManualClock) -> None:
    """A refusal is a 429 with the code `concurrency_exceeded`, and its numbers are in the body and the IETF fields."""
    settings = RateLimitSettings(
        concurrency=[Concurrency(name="runs", limit=1, per="org")],
        response={"headers": ["x-ratelimit", "ietf"]},
    )
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    stage = Stage(limiter)
    stage.app = Starlette(
        routes=[Route("/", stage.serve)],
        middleware=[Middleware(Checked), Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)],
    )
    await limiter.start()
    task = asyncio.create_task(stage.call().run())
    await asyncio.sleep(0)
    refused = await stage.call().run()
    stage.go.set()
    await task
    assert refused.status == 429
    assert refused.headers["ratelimit-policy"] == '"runs";q=1;qu="concurrent-requests"'
    assert refused.headers["ratelimit"] == '"runs";r=0;t=1'
    assert b'"code":"concurrency_exceeded","policy":"runs","limit":1,"remaining":0,"retry_after":1' in refused.body
    assert b"You've exceeded the per-org limit (1 at a time). Try again in 1 second." in refused.body
