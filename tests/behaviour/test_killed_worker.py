"""The promise: permits of a worker that was killed expire with their lease, and those of a live worker do not."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

import httpx2

from ratelimit import Concurrency, Identity, Limiter, RateLimitSettings
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.redis_server import RedisServer
from tests.support.uvicorn_server import uvicorn_process

LEASE = 0.5
WHO = Identity(org="o")


def permit(limiter: Limiter) -> Charge:
    """Return the charge of one permit."""
    charge = limiter.resolver.named.charge("runs", WHO, 1, 0, method="GET", endpoint="/stream")
    assert charge is not None
    return charge


async def held(limiter: Limiter) -> int:
    """Return the number of permits that are held."""
    return (await limiter.enforcer.submit(StoreRequest([permit(limiter)], Operation.USAGE))).readings[0][0]


async def hold(client: httpx2.AsyncClient, url: str) -> AsyncIterator[bytes]:
    """Open a stream and return its body; the stream stays open as long as the body is referenced."""
    response = await client.send(client.build_request("GET", f"{url}/stream"), stream=True)
    assert response.status_code == 200
    body = response.aiter_bytes()
    assert await anext(body) == b"first"
    return body


async def test_permits_of_a_killed_worker_expire_and_those_of_a_live_one_do_not(
    redis_server: RedisServer, redis_url: str
) -> None:
    """Five permits of a worker killed with SIGKILL are free after one lease; a stream keeps its permit for ten."""
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
                ends = [end for _, end in server.zrange(permit(limiter).key, 0, -1, withscores=True)]
            # By the server's clock, which counts here, no permit outlives the worker by more than its lease.
            assert len(ends) == 6
            assert max(ends) <= seconds * 1000 + micros / 1000 + LEASE * 1000
            while await held(limiter) > 1:  # noqa: ASYNC110 - the store sends no event
                await asyncio.sleep(0.01)  # Leases are real time, by the server's clock.
            while time.monotonic() - began < 10 * LEASE:
                assert await held(limiter) == 1
                await asyncio.sleep(0.05)
            del bodies
        # The client has closed its connection, and the server has noticed.
        async with Limiter(settings) as limiter, asyncio.timeout(60):
            while await held(limiter):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
