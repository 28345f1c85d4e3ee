"""The promise: whatever becomes of the replies, each request is charged once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.faults.proxy import Proxy
from ratelimit import Identity, Limiter, Quota, RateLimitSettings, RedisStore
from ratelimit.stores.lanes import ServerLane
from tests.support.redis_server import RedisServer

WHO = Identity(org="acme")
SETTINGS = RateLimitSettings(quotas=[Quota(name="served", limit=10**9, period="month", per="org")])
CHECKS = 4000


@asynccontextmanager
async def between(server: RedisServer, mode: str, share: float) -> AsyncIterator[tuple[str, Proxy]]:
    proxy = Proxy(server.port)
    await proxy.start()
    proxy.mode, proxy.share = mode, share
    yield f"redis://127.0.0.1:{proxy.port}/0", proxy
    await proxy.stop()


@pytest.mark.parametrize("mode", ["lost", "cut", "twice"])
async def test_each_request_is_charged_once(redis_server: RedisServer, redis_url: str, mode: str) -> None:
    """With a tenth of the replies lost, cut in the middle or doubled, the store counts what was admitted."""
    async with between(redis_server, mode, 0.1) as (url, proxy):
        limiter, admitted = Limiter(SETTINGS, RedisStore(url, timeout=0.5)), 0

        async def ask() -> None:
            nonlocal admitted
            for _ in range(CHECKS // 8):
                allowed = (await limiter.check(WHO)).allowed
                admitted += allowed

        await asyncio.gather(*(ask() for _ in range(8)))
        proxy.mode = "pass"
        await limiter.aclose()
    async with Limiter(SETTINGS, RedisStore(redis_url, timeout=10)) as there:
        assert (await there.usage(WHO))[0].used == admitted == CHECKS


async def test_a_store_that_is_too_late_is_told_what_nobody_waited_for(
    redis_server: RedisServer, redis_url: str
) -> None:
    """What was charged after everybody had gone on without it is taken back, and written as it was decided."""
    async with between(redis_server, "pass", 1.0) as (url, _):
        limiter = Limiter(SETTINGS, RedisStore(url, timeout=0.2))
        assert not (await limiter.check(WHO)).degraded
        redis_server.pause()
        try:
            late = await asyncio.gather(*(limiter.check(WHO) for _ in range(3)))
        finally:
            redis_server.go_on()
        assert [(decision.allowed, decision.degraded) for decision in late] == [(True, True)] * 3
        await limiter._guard.absence.look()
        await limiter._guard.absence.drain()
        lane = limiter._store._lane()  # type: ignore[attr-defined]
        assert isinstance(lane, ServerLane)
        async with asyncio.timeout(10):
            while lane.node._doubtful or lane.node._tasks or limiter._guard.absence._tasks:
                await limiter.check(WHO)
                await asyncio.sleep(0.01)
        before = (await limiter.usage(WHO))[0].used
        await limiter.aclose()
    async with Limiter(SETTINGS, RedisStore(redis_url, timeout=10)) as there:
        assert (await there.usage(WHO))[0].used == before


async def test_what_is_counted_by_force_is_counted_once(redis_server: RedisServer, redis_url: str) -> None:
    """Whether its call was done before the answer was lost, or nobody asked the store any more."""
    async with between(redis_server, "pass", 1.0) as (url, proxy):
        limiter = Limiter(SETTINGS, RedisStore(url, timeout=0.5))
        await limiter.consume("served", WHO, 100, force=True)
        proxy.mode = "lost"
        for _ in range(8):  # Five of which set out; the others are kept.
            await limiter.consume("served", WHO, force=True)
        assert limiter._guard.absence.away
        proxy.mode = "pass"
        await limiter.aclose()
    async with Limiter(SETTINGS, RedisStore(redis_url, timeout=10)) as there:
        assert (await there.usage(WHO))[0].used == 108
