"""The worker registry: how many workers share the limits."""

import asyncio

from ratelimit import Limiter, RateLimitSettings, RedisStore
from ratelimit.enforcement.workers import WORKER_TTL, WorkerRegistry
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import fresh_key
from tests.support.stores import RemoteStore


class CountingStore(RemoteStore):
    """Says how many workers there are, and keeps the heartbeats that it got."""

    registered = 1

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.heartbeats: list[tuple[str, str, float]] = []

    async def heartbeat(self, registry: str, worker: str, seconds: float) -> int:
        self.heartbeats.append((registry, worker, seconds))
        return self.registered


async def test_workers_know_how_many_they_are(redis_url: str) -> None:
    """Those that have closed, or were killed and have sent no heartbeat for some time, no longer count."""
    settings = RateLimitSettings(limits=[{"name": "t", "rate": "9/minute"}], key_prefix=fresh_key())
    one, two, three = (Limiter(settings, RedisStore(redis_url, timeout=10)) for _ in range(3))

    async def counts(*limiters: Limiter) -> list[int]:
        for limiter in limiters:
            await limiter.enforcer.workers.heartbeat()
        return [limiter.enforcer.workers.count for limiter in limiters]

    assert await counts(one, two, three) == [1, 2, 3]
    await two.aclose()
    assert await counts(one, three) == [2, 2]
    await three.enforcer.workers.heartbeat(0.001)
    await asyncio.sleep(0.01)  # It expires by the server's clock.
    assert await counts(one) == [1]
    await one.aclose()
    await three.aclose()


async def test_a_worker_that_has_not_reconnected_still_counts(clock: ManualClock) -> None:
    """While the store is unavailable to this worker the count only grows: the others serve their shares as well."""
    store, is_unavailable = CountingStore(clock), False
    workers = WorkerRegistry(store, "rl", is_unavailable=lambda: is_unavailable)
    store.registered = 4
    await workers.heartbeat()
    is_unavailable, store.registered = True, 1
    await workers.heartbeat()
    assert workers.count == 4
    store.registered = 5
    await workers.heartbeat()
    assert workers.count == 5
    is_unavailable, store.registered = False, 1
    await workers.heartbeat()
    assert workers.count == 1


async def test_a_worker_alone_has_nothing_to_sign_off(clock: ManualClock) -> None:
    """Only among several its registration matters, and closing one worker need not reach the store."""
    store = CountingStore(clock)
    workers = WorkerRegistry(store, "rl")
    await workers.heartbeat()
    await workers.sign_off()
    assert [seconds for _, _, seconds in store.heartbeats] == [WORKER_TTL]
    store.registered = 2
    await workers.heartbeat()
    await workers.sign_off()
    assert [seconds for _, _, seconds in store.heartbeats] == [WORKER_TTL, WORKER_TTL, 0.0]


async def test_workers_of_one_store_share_a_registry_and_have_names_of_their_own(clock: ManualClock) -> None:
    """A worker keeps its name, and counts itself even where the store has lost it."""
    store = CountingStore(clock)
    one, two = WorkerRegistry(store, "rl"), WorkerRegistry(store, "rl")
    for workers in (one, two, one):
        store.registered = 0
        await workers.heartbeat()
        assert workers.count == 1
    registries, names, _ = zip(*store.heartbeats, strict=True)
    assert set(registries) == {"rl:{workers}"}
    assert (names[0] == names[2], names[0] == names[1]) == (True, False)
