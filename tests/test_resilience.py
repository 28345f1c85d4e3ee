"""The guard: a store that is away costs patience once, not at every request."""

import asyncio

from ratelimit import MemoryStore, StoreError
from ratelimit.charge import Charge
from ratelimit.resilience import Guard
from ratelimit.stores import Answer, Request
from tests.support.clock import ManualClock
from tests.support.engines import terms


class Fragile(MemoryStore):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.away, self.asked = False, 0

    async def submit(self, request: Request) -> Answer:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreError("away")
        return await super().submit(request)


CHARGE = [Charge(terms(1000), "k")]


async def test_after_five_failures_only_one_request_a_second_asks(clock: ManualClock) -> None:
    """Twenty requests while the store is away: five wait for it, and one more after each second."""
    store = Fragile(clock)
    guard, store.away = Guard(store, clock, set()), True
    decisions = [await guard.decide(CHARGE) for _ in range(20)]
    assert store.asked == 5
    assert all(decision.allowed and decision.degraded for decision in decisions)
    for _ in range(3):
        clock.advance(seconds=1)
        for _ in range(10):
            await guard.decide(CHARGE)
    assert store.asked == 8


async def test_of_many_at_once_only_one_tries(clock: ManualClock) -> None:
    """When the pause is over, a crowd does not wait for the store together."""
    store = Fragile(clock)
    guard, store.away = Guard(store, clock, set()), True
    for _ in range(5):
        await guard.decide(CHARGE)
    clock.advance(seconds=1)
    await asyncio.gather(*(guard.decide(CHARGE) for _ in range(10)))
    assert store.asked == 6


async def test_a_store_that_is_back_is_used_at_once(clock: ManualClock) -> None:
    """The first answer ends the pause for everybody, and failures are counted anew."""
    store = Fragile(clock)
    guard, store.away = Guard(store, clock, set()), True
    for _ in range(9):
        await guard.decide(CHARGE)
    store.away = False
    assert (await guard.decide(CHARGE)).degraded
    clock.advance(seconds=1)
    assert [(await guard.decide(CHARGE)).degraded for _ in range(3)] == [False] * 3
    store.away = True
    asked = store.asked
    for _ in range(9):
        await guard.decide(CHARGE)
    assert store.asked == asked + 5


async def test_a_clock_that_is_set_back_does_not_keep_the_store_away(clock: ManualClock) -> None:
    """The pause is a second, whatever the wall clock does meanwhile."""
    store = Fragile(clock)
    guard, store.away = Guard(store, clock, set()), True
    for _ in range(5):
        await guard.decide(CHARGE)
    store.away = False
    clock.advance(seconds=-3600)
    assert not (await guard.decide(CHARGE)).degraded
