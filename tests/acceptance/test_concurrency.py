"""The promise: at most N at once, and whatever happens to them, every slot comes back."""

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
from ratelimit.charge import Charge, Terms
from ratelimit.errors import StoreTimeout
from ratelimit.stores import Answer, Op, Request, Store
from ratelimit.testing import ManualClock
from tests.support.asgi import Checked, by_headers, twice
from tests.support.raw import Call
from tests.support.redis_server import RedisServer

ACME = {"x-org": "acme"}
WHO = Identity(org="acme")


def limiter_with(store: Store, clock: ManualClock, limit: int = 5, **options: Any) -> Limiter:
    runs = Concurrency(name="runs", limit=limit, per="org", **options)
    return Limiter(RateLimitSettings(concurrency=[runs]), store, clock)


async def held(limiter: Limiter, store: Store) -> int:
    charges = limiter.plan.rules(limiter.plan.endpoint("GET", "/")).charges(WHO)
    return (await store.submit(Request(charges, Op.USAGE))).numbers[0][0]


class Stage:
    """An app whose requests wait inside until they are let go, and then end in the way that they asked for."""

    def __init__(self, limiter: Limiter) -> None:
        self.go, self.behind = asyncio.Event(), asyncio.Event()
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
        return PlainTextResponse("done", background=BackgroundTask(self.behind.wait) if how == "background" else None)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"first"
        await self.go.wait()
        yield b"last"

    def call(self, how: str = "plain", spec: str = "2.3") -> Call:
        return Call(self.app, headers={**ACME, "x-end": how}, spec=spec)


async def until(condition: Any) -> None:
    """Let everything run until it holds; a real store answers in its own time."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - what it waits for is in a store
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
async def test_one_more_than_n_is_refused_and_all_slots_come_back(store: Store, clock: ManualClock, spec: str) -> None:
    """Of N + 1 in parallel exactly one gets 429, however the others end: served, streamed, failed, left, cancelled."""
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


async def test_a_slot_is_held_to_the_last_chunk(store: Store, clock: ManualClock) -> None:
    """While a body streams its slot is taken; with its last chunk it is free, before background tasks are done."""
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


async def test_a_slot_is_free_only_when_the_last_chunk_was_sent(store: Store, clock: ManualClock) -> None:
    """While the server still takes it, it is held."""
    limiter = limiter_with(store, clock, limit=1)
    stage = Stage(limiter)
    stage.go.set()
    call, seen = stage.call(), list[int]()
    send = call._send

    async def slow(message: Any) -> None:
        if message["type"] == "http.response.body":
            seen.append(await held(limiter, store))
        await send(message)

    call._send = slow  # type: ignore[method-assign]
    await call.run()
    assert (seen, await held(limiter, store)) == ([1], 0)


@pytest.mark.parametrize(("hold", "left"), [("response", 0), ("background", 1)])
async def test_background_tasks_hold_it_only_if_asked(store: Store, clock: ManualClock, hold: Any, left: int) -> None:
    """`hold` chooses whether a slot ends with the response or with what runs after it."""
    limiter = limiter_with(store, clock, limit=1, hold=hold)
    stage = Stage(limiter)
    stage.go.set()
    call = stage.call("background")
    task = asyncio.create_task(call.run())

    async def answered() -> bool:
        return b"done" in call.body and await held(limiter, store) == left

    await until(answered)
    assert not task.done()
    stage.behind.set()
    await task
    assert await held(limiter, store) == 0


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_on_the_way_to_the_store(store: Store, clock: ManualClock, turns: int) -> None:
    """Whoever is cancelled while the store decides holds nothing and is charged nothing."""
    settings = {
        "limits": [{"name": "rate", "rate": "1000/minute", "per": "org"}],
        "concurrency": [{"name": "runs", "limit": 1000, "per": "org"}],
    }
    limiter = Limiter(RateLimitSettings.model_validate(settings), store, clock)
    await limiter.start()
    tasks = [asyncio.create_task(limiter.check(WHO)) for _ in range(40)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [result for result in results if not isinstance(result, BaseException)]
    assert len(kept) >= 20
    await limiter._guard.absence.drain()
    charges = limiter.plan.rules(limiter.plan.endpoint("GET", "/")).charges(WHO)
    usage = await store.submit(Request(charges, Op.USAGE))
    assert [used for used, _, _ in usage.numbers] == [len(kept), len(kept)]


async def test_a_slot_that_runs_for_ten_leases_is_kept(store: Store, clock: ManualClock) -> None:
    """Renewed three times in each lease it never ends; without renewal it ends with the lease."""
    limiter = limiter_with(store, clock, limit=1, lease=30)
    async with limiter.slot("runs", WHO) as decision:
        (receipt,) = decision.receipts
        for _ in range(30):
            clock.advance(seconds=10)
            timer = receipt._timer  # type: ignore[attr-defined]
            assert 0 < timer.when() - asyncio.get_running_loop().time() <= 10
            receipt._beat()  # type: ignore[attr-defined]
            await limiter._guard.absence.drain()
            assert await held(limiter, store) == 1
        clock.advance(ms=29_999)
        assert await held(limiter, store) == 1
        clock.advance(ms=1)
        assert await held(limiter, store) == 0
        timer = receipt._timer  # type: ignore[attr-defined]
    assert timer.cancelled()


async def test_a_slot_for_a_job(store: Store, clock: ManualClock) -> None:
    """`async with` holds one slot, raises where none is free, and gives it back when the job fails."""
    limiter = limiter_with(store, clock, limit=1, lease=0.4)
    with contextlib.suppress(ZeroDivisionError):
        async with limiter.slot("runs", WHO) as decision:
            assert decision.allowed
            with pytest.raises(LimitExceeded, match=r"no slot of 'runs' is free; try again in 0.4 s") as refused:
                await limiter.slot("runs", WHO).__aenter__()
            assert refused.value.decision.retry_after == 0.4
            raise ZeroDivisionError
    assert await held(limiter, store) == 0
    async with limiter.slot("runs", Identity(ip="1.2.3.4")) as decision:
        assert decision.limits == ()


async def test_what_gives_no_slots(store: Store, clock: ManualClock) -> None:
    """A policy that is unknown, or of another kind, is said at once."""
    settings = RateLimitSettings.model_validate({"limits": [{"name": "rate", "rate": "1/minute"}]})
    limiter = Limiter(settings, store, clock)
    with pytest.raises(ConfigurationError, match="policy: 'none' is not one of rate"):
        limiter.slot("none", WHO)
    with pytest.raises(ConfigurationError, match="'rate' gives no slots"):
        limiter.slot("rate", WHO)


async def test_finishing_twice_gives_back_once(store: Store, clock: ManualClock) -> None:
    """`finish` may be called again, by anybody, and others keep their slots."""
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
    """One second, unless the oldest lease ends sooner."""
    limiter = limiter_with(store, clock, limit=1, lease=lease)
    await limiter.check(WHO)
    refused = await limiter.check(WHO)
    assert (refused.status, refused.retry_after) == (429, wait)
    assert refused.binding is not None
    assert (refused.binding.kind, refused.binding.limit, refused.binding.window) == ("concurrency", 1, 0)


def test_a_websocket_holds_its_slot_until_it_closes(clock: ManualClock) -> None:
    """The handshake takes it, the end of the connection gives it back."""

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


class Wavering(MemoryStore):
    away = False

    async def submit(self, request: Request) -> Answer:
        if self.away:
            raise StoreError("away")
        return await super().submit(request)


async def test_slots_of_the_fallback_come_back_there(clock: ManualClock) -> None:
    """A slot that was given while the store was away is given back where it was taken."""
    store = Wavering(clock=clock)
    limiter = limiter_with(store, clock, limit=1)
    store.away = True
    first, second = await limiter.check(WHO), await limiter.check(WHO)
    assert (first.allowed, first.degraded, second.allowed) == (True, True, False)
    store.away = False
    await limiter.finish(first)
    store.away = True
    assert (await limiter.check(WHO)).allowed


class Late(MemoryStore):
    """A store whose every answer is lost, although it has done what was asked."""

    late = False

    async def submit(self, request: Request) -> Answer:
        answer = await super().submit(request)
        if self.late:
            raise StoreTimeout
        return answer


async def test_slots_are_owed_to_a_store_that_did_not_answer(clock: ManualClock) -> None:
    """What was taken or given back while answers were lost is given back when the store is heard again."""
    store = Late(clock=clock)
    limiter = limiter_with(store, clock, limit=100)
    limiter._guard._sender = limiter._guard  # As if it were not in this process.
    early = [await limiter.check(WHO) for _ in range(3)]
    store.late = True
    lost = [await limiter.check(WHO) for _ in range(4)]
    assert all(decision.degraded for decision in lost)
    for decision in early:
        await limiter.finish(decision)
    store.late = False
    assert await held(limiter, store) == 6  # Of the three, one was given back before nobody asked any more.
    await limiter._guard.absence.look()
    await limiter._guard.absence.drain()
    last = await limiter.check(WHO)
    await limiter._guard.absence.drain()
    assert await held(limiter, store) == 1
    await limiter.finish(last)
    await limiter._guard.absence.drain()
    assert await held(limiter, store) == 0


async def test_a_limiter_that_is_closed_renews_no_more(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the event loop in which it was closed; opened again it goes on, and other loops never stopped."""
    limiter, sent = limiter_with(MemoryStore(clock=clock), clock), list[Op]()
    monkeypatch.setattr(limiter._guard._sender, "send", lambda request: sent.append(request.op))
    async with limiter:
        decision = await limiter.check(WHO)
        decision.receipts[0].keep()
        decision.receipts[0]._beat()  # type: ignore[attr-defined]
        assert sent == [Op.RENEW]
    decision.receipts[0]._beat()  # type: ignore[attr-defined]
    assert sent == [Op.RENEW]
    await asyncio.to_thread(asyncio.run, _beat(decision))
    assert sent == [Op.RENEW] * 2
    async with limiter:
        decision.receipts[0]._beat()  # type: ignore[attr-defined]
        assert sent == [Op.RENEW] * 3


async def _beat(decision: Decision) -> None:
    decision.receipts[0]._beat()  # type: ignore[attr-defined]


async def test_the_shortest_lease_sets_the_pace(store: Store, clock: ManualClock) -> None:
    """Of two slots of one request, the one whose lease ends sooner is renewed in time."""
    policies = [Concurrency(name=f"c{lease}", limit=1, per="org", lease=lease) for lease in (60, 3)]
    limiter = Limiter(RateLimitSettings(concurrency=policies), store, clock)
    decision = await limiter.check(WHO)
    decision.receipts[0].keep()
    timer = decision.receipts[0]._timer  # type: ignore[attr-defined]
    assert timer.when() - asyncio.get_running_loop().time() <= 1
    await limiter.finish(decision)


async def test_a_shadow_without_room_has_nothing_to_give_back(store: Store, clock: ManualClock) -> None:
    """Settling what a shadow did not count credits nobody."""
    shadow = {"name": "s", "limit": 10, "period": "day", "per": "org", "shadow": True, "cost": 8, "refund_on": 500}
    limiter = Limiter(RateLimitSettings.model_validate({"quotas": [shadow]}), store, clock)
    await limiter.check(WHO)
    over = await limiter.check(WHO)
    assert over.limits[0].retry_after > 0
    await over.settle({"s": 0})
    await over.receipts[0].refund(500)
    assert (await limiter.usage(WHO))[0].used == 8


async def test_of_several_holders_of_the_fallback_each_counts(clock: ManualClock) -> None:
    """While the store is away, this worker admits as many at once as the limit says, and no more."""
    store = Wavering(clock=clock)
    store.away = True
    limiter = limiter_with(store, clock, limit=2)
    assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True, True, False]


async def test_a_renewal_that_was_lost_is_not_owed(clock: ManualClock) -> None:
    """Only what is to be given back is; a finished slot does not come back to life."""
    store = Late(clock=clock)
    limiter = limiter_with(store, clock, limit=5)
    limiter._guard._sender = limiter._guard
    await limiter.check(WHO)
    store.late = True
    await limiter._guard.send(Request([Charge(decision_terms(limiter), "k")], Op.RENEW, 7))
    assert not limiter._guard.absence._owed


def decision_terms(limiter: Limiter) -> Terms:
    return limiter.plan.rules(limiter.plan.endpoint("GET", "/")).charges(WHO)[0].terms


async def test_whoever_is_cancelled_before_the_call_fails_is_owed_for(
    redis_server: RedisServer, redis_url: str
) -> None:
    """A slot that a broken call may have taken for somebody who has gone is given back as well."""
    store = RedisStore(redis_url, timeout=0.2)
    async with limiter_with(store, ManualClock(), limit=1, lease=600) as limiter:
        await limiter.finish(await limiter.check(WHO))
        with redis_server.client() as client:
            client.execute_command("CLIENT", "PAUSE", 400)
            task = asyncio.create_task(limiter.check(WHO))
            for _ in range(5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(20):
                while not limiter._guard.absence._owed:  # noqa: ASYNC110 - what it waits for is a timeout of the store
                    await asyncio.sleep(0.01)
            assert client.ping()  # The pause is over.
        limiter._guard.absence._failures = 1
        limiter._guard.absence.found()
        await limiter._guard.absence.drain()
        assert (await limiter.check(WHO)).allowed


async def test_a_key_that_holds_something_else(redis_url: str, clock: ManualClock) -> None:
    """A list where slots should be is written over, and the requests beside it are decided."""
    store = RedisStore(redis_url, clock=clock, timeout=10)
    async with limiter_with(store, clock, limit=5) as limiter:
        for kind in (("RPUSH", "x"), ("SET", "x"), ("SADD", "x"), ("HSET", "x", "y")):
            await store._lane().run("DEL", "rl:{acme}:runs:slots:acme")
            await store._lane().run(kind[0], "rl:{acme}:runs:slots:acme", *kind[1:])
            decisions = await asyncio.gather(*(limiter.check(Identity(org=org)) for org in ("acme", "b", "c")))
            assert [(each.allowed, each.degraded) for each in decisions] == [(True, False)] * 3
            assert await held(limiter, store) == 1


async def test_a_refusal_has_the_problem_of_its_kind(clock: ManualClock) -> None:
    """429, `concurrency_exceeded`, with numbers and in the IETF fields."""
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
