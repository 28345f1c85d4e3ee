"""The guard: a store that is away costs patience once, not at every request."""

import asyncio

import pytest

from ratelimit import MemoryStore, StoreError
from ratelimit.charge import Charge
from ratelimit.resilience import Guard
from ratelimit.stores import Answer, Request
from ratelimit.testing import ManualClock
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


async def test_after_five_failures_nobody_asks(clock: ManualClock) -> None:
    """Twenty requests while the store is away: five wait for it, the others are decided at once."""
    store = Fragile(clock)
    guard, store.away = Guard(store, clock, set()), True
    decisions = [await guard.decide(CHARGE) for _ in range(20)]
    assert store.asked == 5
    assert all(decision.allowed and decision.degraded for decision in decisions)
    assert guard.at_once(CHARGE) is not None


async def test_requests_that_failed_together_are_one_failure(clock: ManualClock) -> None:
    """A call that took many along says no more than a call of one."""

    class Together(Fragile):
        async def submit(self, request: Request) -> Answer:
            raise StoreError("away") from CAUSES[0]

    guard = Guard(Together(clock), clock, set())
    for cause in range(4):
        CAUSES[:] = [StoreError(str(cause))]
        for _ in range(20):
            await guard.decide(CHARGE)
    assert not guard.absence.away
    CAUSES[:] = [StoreError("last")]
    await guard.decide(CHARGE)
    assert guard.absence.away


CAUSES: list[StoreError] = []


async def test_the_store_is_looked_for_in_the_background(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again without anybody asking, by one task, until it is there."""
    monkeypatch.setattr("ratelimit.absence.PAUSE", 0)
    store = Fragile(clock)
    guard, store.away = Guard(store, clock, set()), True
    for _ in range(5):
        await guard.decide(CHARGE)
    asked = store.asked
    async with asyncio.timeout(20):
        while store.asked < asked + 3:
            assert guard.at_once(CHARGE) is not None
            await asyncio.sleep(0)
        store.away = False
        while guard.absence.away:  # noqa: ASYNC110 - what it waits for is a timer
            await asyncio.sleep(0)
    asked = store.asked
    await guard.absence.drain()
    for _ in range(20):
        await asyncio.sleep(0)
    assert store.asked - asked <= 1
    await guard.aclose()


async def test_a_store_that_is_back_is_used_at_once(clock: ManualClock) -> None:
    """The first look that finds it ends the absence for everybody, and failures are counted anew."""
    store = Fragile(clock)
    guard, store.away = Guard(store, clock, set()), True
    for _ in range(9):
        await guard.decide(CHARGE)
    await guard.absence.look()
    await guard.absence.drain()
    assert (await guard.decide(CHARGE)).degraded
    store.away = False
    await guard.absence.look()
    await guard.absence.drain()
    assert [(await guard.decide(CHARGE)).degraded for _ in range(3)] == [False] * 3
    store.away = True
    asked = store.asked
    for _ in range(9):
        await guard.decide(CHARGE)
    assert store.asked == asked + 5


async def test_one_that_was_closed_looks_no_more(clock: ManualClock) -> None:
    """Closing looks a few times more, and then nothing runs on."""
    store = Fragile(clock)
    guard, store.away = Guard(store, clock, set()), True
    for _ in range(6):
        await guard.decide(CHARGE)
    await guard.aclose()
    assert store.asked == 5 + 3
    assert guard.absence._looking is None
