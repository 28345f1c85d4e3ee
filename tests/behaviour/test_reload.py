"""The promise: settings change under load, and no request is lost or counted twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from ratelimit import Identity, Limit, Limiter, MemoryStore, Quota, RateLimitSettings, RedisStore
from ratelimit.stores.base import Store

REQUESTS, RELOADS, ORGS = 3000, 40, 5


def settings(number: int) -> RateLimitSettings:
    """Return settings that differ from the ones before in everything but the names that count on."""
    return RateLimitSettings(
        limits=[
            Limit(name="org", rate=f"{100_000 + number}/hour", per="org", burst=0.25 if number % 2 else 0.0),
            Limit(name=f"other-{number % 3}", rate="100000/hour", per="token"),
        ],
        quotas=[Quota(name="units", limit=10**6 + number, period="month", per="org")],
    )


@pytest.fixture(params=["memory", "redis"])
async def workers(request: pytest.FixtureRequest) -> AsyncIterator[list[Limiter]]:
    """Three limiters that share their counters, each with connections of its own where they are in Redis."""
    shared = MemoryStore()

    def store() -> Store:
        if request.param == "memory":
            return shared
        return RedisStore(request.getfixturevalue("redis_server").url, timeout=10)

    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Limiter(settings(0), store())) for _ in range(3)]


async def test_reloading_under_load_drops_and_doubles_nothing(workers: list[Limiter]) -> None:
    """Each of three workers reloads all the time; what was admitted is what is counted."""
    admitted = [0] * ORGS

    async def ask(worker: Limiter, first: int) -> None:
        for number in range(first, REQUESTS, 30):
            org = number % ORGS
            decision = await worker.check(Identity(token=f"t{number % 7}", org=f"reload-{org}"))
            assert decision.allowed
            assert {limit.policy for limit in decision.limits} >= {"org", "units"}
            admitted[org] += 1

    async def reload(worker: Limiter) -> None:
        for number in range(1, RELOADS):
            await worker.reload(settings(number))
            await asyncio.sleep(0)
            await worker.health()

    asking = [ask(workers[first % 3], first) for first in range(30)]
    await asyncio.gather(*asking, *(reload(worker) for worker in workers))
    for org, number in enumerate(admitted):
        (usage,) = await workers[0].usage(Identity(org=f"reload-{org}"))
        seen = await workers[1].peek(Identity(token="new", org=f"reload-{org}"))
        window = next(limit for limit in seen.limits if limit.policy == "org")
        assert (usage.used, window.limit - window.remaining) == (number, number)
    assert sum(admitted) == REQUESTS
