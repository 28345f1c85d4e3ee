"""The promise: slots of a worker that was killed come back after their lease, and those of a live one never do."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

import httpx2

from ratelimit import Concurrency, Identity, Limiter, RateLimitSettings
from ratelimit.stores import Op, Request
from tests.support.redis_server import RedisServer
from tests.support.uvicorn_server import uvicorn_process

LEASE = 0.5
WHO = Identity(org="o")


async def held(limiter: Limiter) -> int:
    charge = limiter.plan.charge("runs", WHO, 1, 0, method="GET", endpoint="/stream")
    assert charge is not None
    return (await limiter._guard.ask(Request([charge], Op.USAGE))).numbers[0][0]


async def hold(client: httpx2.AsyncClient, url: str) -> AsyncIterator[bytes]:
    """Open a stream and return it; it is open as long as somebody has it."""
    response = await client.send(client.build_request("GET", f"{url}/stream"), stream=True)
    assert response.status_code == 200
    body = response.aiter_bytes()
    assert await anext(body) == b"first"
    return body


async def test_a_killed_worker_gives_back_its_slots_and_a_live_one_keeps_them(
    redis_server: RedisServer, redis_url: str
) -> None:
    """Five slots of a worker killed with SIGKILL are free after one lease; one that streams for ten leases is not."""
    runs = Concurrency(name="runs", limit=6, per="org", lease=LEASE)
    settings = RateLimitSettings(store=redis_url, store_timeout=10, concurrency=[runs])
    stored = {**settings.model_dump(mode="json"), "store": redis_url}
    with ExitStack() as stack:
        dying, victim = stack.enter_context(uvicorn_process(stored))
        living, _ = stack.enter_context(uvicorn_process(stored))
        async with (
            asyncio.timeout(60),
            Limiter(settings) as limiter,
            httpx2.AsyncClient(headers={"x-org": "o"}, timeout=30) as client,
        ):
            bodies = [await hold(client, url) for url in [dying] * 5 + [living]]
            began = time.monotonic()
            assert await held(limiter) == 6
            assert (await client.get(f"{living}/stream")).status_code == 429
            victim.kill()
            with redis_server.client() as server:
                seconds, micros = server.time()
                ends = [end for _, end in server.zrange("rl:{o}:runs:slots:o", 0, -1, withscores=True)]
            # By the server's clock, which is the one that counts, no slot outlives the worker by more than its lease.
            assert len(ends) == 6
            assert max(ends) <= seconds * 1000 + micros / 1000 + LEASE * 1000
            while await held(limiter) > 1:  # noqa: ASYNC110 - what it waits for is in a store
                await asyncio.sleep(0.01)  # Leases are real time, by the server's clock.
            while time.monotonic() - began < 10 * LEASE:
                assert await held(limiter) == 1
                await asyncio.sleep(0.05)
            del bodies
        # The client has gone, and its server noticed.
        async with Limiter(settings) as limiter, asyncio.timeout(20):
            while await held(limiter):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
