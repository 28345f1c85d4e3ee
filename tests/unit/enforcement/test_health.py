"""Health: how the store is, found out by one call."""

import pytest

from ratelimit import Limit, Limiter, MemoryStore, RateLimitSettings
from ratelimit.errors import StoreUnavailable
from ratelimit.stores.base import Store
from ratelimit.stores.messages import StoreReply, StoreRequest
from ratelimit.testing import ManualClock

SETTINGS = RateLimitSettings(limits=[Limit(name="a", rate="9/minute")])


async def test_a_store_that_answers_is_well(store: Store, clock: ManualClock) -> None:
    """With the time that a call took."""
    health = await Limiter(SETTINGS, store, clock).health()
    assert (health.ok, health.store, health.breaker, health.pending, health.workers) == (True, "ok", "closed", 0, 1)
    assert health.round_trip is not None
    assert health.round_trip > 0


async def test_one_that_does_not_is_said(clock: ManualClock) -> None:
    """Without its address."""

    class Away(MemoryStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            raise StoreUnavailable("the store could not be reached")

    limiter = Limiter(SETTINGS, Away(clock=clock), clock)
    for _ in range(6):
        health = await limiter.health()
    assert (health.ok, health.store, health.round_trip) == (False, "unavailable", None)
    assert health.error == "the store could not be reached"


@pytest.mark.parametrize("fails", [False, True])
async def test_it_never_fails(clock: ManualClock, *, fails: bool) -> None:
    """Whatever the store does."""

    class Odd(MemoryStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            if fails:
                raise StoreUnavailable
            return await super().submit(request)

    assert (await Limiter(SETTINGS, Odd(clock=clock), clock).health()).ok is not fails


async def test_the_store_is_asked_once_a_second_at_most(clock: ManualClock) -> None:
    """However many probes there are."""

    class Counting(MemoryStore):
        calls = 0

        async def submit(self, request: StoreRequest) -> StoreReply:
            self.calls += 1
            return await super().submit(request)

    store = Counting(clock=clock)
    limiter = Limiter(SETTINGS, store, clock)
    first = [await limiter.health() for _ in range(20)]
    assert store.calls == 1
    assert first[0] is first[-1]
