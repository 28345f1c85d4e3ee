"""The promise: whatever happens to the replies, each request is charged once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.faults.proxy import Proxy
from ratelimit import Identity, Limiter, Quota, RateLimitSettings, RedisStore
from tests.support.redis_server import RedisServer

WHO = Identity(org="acme")
SETTINGS = RateLimitSettings(quotas=[Quota(name="served", limit=10**9, period="month", per="org")])
CHECKS = 4000


@asynccontextmanager
async def proxied(server: RedisServer, mode: str, share: float) -> AsyncIterator[tuple[str, Proxy]]:
    """Put a proxy before the server that treats a `share` of the replies as `mode` says; yield its URL and it."""
    proxy = Proxy(server.port)
    await proxy.start()
    proxy.mode, proxy.share = mode, share
    yield f"redis://127.0.0.1:{proxy.port}/0", proxy
    await proxy.stop()


@pytest.mark.parametrize("mode", ["lost", "cut", "twice"])
async def test_each_request_is_charged_once(redis_server: RedisServer, redis_url: str, mode: str) -> None:
    """If a tenth of the replies is lost, cut off or sent twice, the store counts exactly what was admitted."""
    async with proxied(redis_server, mode, 0.1) as (url, proxy):
        limiter, admitted = Limiter(SETTINGS, RedisStore(url, timeout=0.5)), 0

        async def ask() -> None:
            nonlocal admitted
            for _ in range(CHECKS // 8):
                allowed = (await limiter.check(WHO)).allowed
                admitted += allowed

        await asyncio.gather(*(ask() for _ in range(8)))
        proxy.mode = "pass"
        await limiter.aclose()
    async with Limiter(SETTINGS, RedisStore(redis_url, timeout=10)) as direct:
        assert (await direct.usage(WHO))[0].used == admitted == CHECKS


async def test_charges_that_were_made_too_late_are_taken_back(redis_server: RedisServer, redis_url: str) -> None:
    """A charge that was made after its caller went on is taken back, and the local decision is reported instead."""
    async with proxied(redis_server, "pass", 1.0) as (url, _):
        store = RedisStore(url, timeout=1)
        limiter = Limiter(SETTINGS, store)
        assert not (await limiter.check(WHO)).degraded
        redis_server.pause()
        try:
            late = await asyncio.gather(*(limiter.check(WHO) for _ in range(3)))
        finally:
            redis_server.go_on()
        assert [(decision.allowed, decision.degraded) for decision in late] == [(True, True)] * 3
        await limiter.enforcer.circuit_breaker.probe()
        await limiter.enforcer.drain()
        async with asyncio.timeout(60):
            while not store.client.is_settled:
                await limiter.check(WHO)
                await asyncio.sleep(0.01)
        await limiter.enforcer.drain()
        before = (await limiter.usage(WHO))[0].used
        await limiter.aclose()
    async with Limiter(SETTINGS, RedisStore(redis_url, timeout=10)) as direct:
        assert (await direct.usage(WHO))[0].used == before


async def test_a_forced_charge_is_counted_once(redis_server: RedisServer, redis_url: str) -> None:
    """So it is whether its call was executed and the reply lost, or the store was not called at all."""
    async with proxied(redis_server, "pass", 1.0) as (url, proxy):
        limiter = Limiter(SETTINGS, RedisStore(url, timeout=0.5))
        await limiter.consume("served", WHO, 100, force=True)
        proxy.mode = "lost"
        for _ in range(8):  # Five of them are sent; the others are kept.
            await limiter.consume("served", WHO, force=True)
        assert limiter.enforcer.circuit_breaker.is_open
        proxy.mode = "pass"
        await limiter.aclose()
    async with Limiter(SETTINGS, RedisStore(redis_url, timeout=10)) as direct:
        assert (await direct.usage(WHO))[0].used == 108
