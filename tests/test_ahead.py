"""Units taken ahead: far fewer calls for a hot key, and never one unit beyond its limit."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Identity, Limit, Limiter, Quota, RateLimitSettings, RedisStore, StoreError
from ratelimit.stores import Answer, Request
from ratelimit.testing import ManualClock
from tests.acceptance.test_theorem import most_in_windows
from tests.test_refusals import Far

WHO = Identity(org="o")


def hot(rate: str = "1000/minute", **more: Any) -> Limit:
    return Limit(name="hot", rate=rate, per="org", lease=100, **more)


def workers(count: int, clock: ManualClock, *limits: Limit) -> tuple[Far, list[Limiter]]:
    store = Far(clock)
    return store, [Limiter(RateLimitSettings(limits=list(limits)), store, clock) for _ in range(count)]


async def test_a_hot_key_costs_a_tenth_of_the_calls(clock: ManualClock) -> None:
    """Four workers, eight thousand requests of one organization in two seconds: hundreds of calls."""
    store, four = workers(4, clock, hot("1000000/minute"))
    for n in range(8000):
        if n % 4 == 0:
            clock.advance(ms=1)
        assert (await four[n % 4].check(WHO)).allowed
    assert store.asked < 800


async def test_alone_a_worker_gets_all_of_a_limit(clock: ManualClock) -> None:
    """Near the limit each unit is asked for by itself: 1000 are served, and no more."""
    store, (one,) = workers(1, clock, hot())
    decisions = [await one.check(WHO) for _ in range(1100)]
    assert [decision.allowed for decision in decisions] == [True] * 1000 + [False] * 100
    assert [limit.limit for limit in decisions[-1].violated] == [1000]
    assert store.asked < 350


@settings(max_examples=60)
@given(
    st.sampled_from([(70, 0.0), (200, 0.25), (1000, 0.1)]),
    st.lists(
        st.tuples(st.sampled_from([0, 0, 0, 1, 5, 16, 300, 1000, 1017]), st.integers(0, 2), st.integers(1, 40)),
        max_size=120,
    ),
)
def test_never_a_unit_beyond_the_limit(numbers: tuple[int, float], history: list[tuple[int, int, int]]) -> None:
    """Whatever three workers do, any k consecutive windows admit at most k·L + C."""
    limit, burst = numbers

    async def play() -> list[tuple[int, int]]:
        clock, spent = ManualClock(), list[tuple[int, int]]()
        _, three = workers(3, clock, hot(f"{limit}/second", burst=burst))
        for wait, worker, times in history:
            clock.advance(ms=wait)
            for _ in range(times):
                if (await three[worker].check(WHO)).allowed:
                    spent.append((clock() // 1000, 1))
        return spent

    spent = asyncio.run(play())
    for k in range(1, 4):
        assert most_in_windows(spent, k * 1000) <= k * limit + int(limit * burst)


async def test_what_is_told_is_never_too_much(clock: ManualClock) -> None:
    """What a worker holds counts as spent: `remaining` is at most what there was when the store was asked last."""
    _, (one,) = workers(1, clock, hot())
    for n in range(300):
        told = await one.check(WHO)
        assert told.limits[0].remaining <= 1000 - (n + 1)
        assert (told.limits[0].cost, told.binding) == (1, told.limits[0])


async def test_all_or_nothing_holds_for_what_is_held(clock: ManualClock) -> None:
    """A request that another limit refuses spends nothing of what was taken ahead."""
    narrow = Limit(name="narrow", rate="50/minute", per="org")
    _, (one,) = workers(1, clock, hot(), narrow)
    assert sum([(await one.check(WHO)).allowed for _ in range(200)]) == 50
    trip = next(iter(one._guard._ahead._held.values()))  # type: ignore[union-attr]
    told = await one.peek(WHO)
    assert [limit.policy for limit in told.violated] == ["narrow"]
    assert 1000 - told.limits[0].remaining - trip.units == 50


async def test_several_held_limits_are_spent_together(clock: ManualClock) -> None:
    """Two limits with leases, one of them small: calls stay few, and both stay exact."""
    small = Limit(name="small", rate="300/minute", per="org", lease=100)
    store, (one,) = workers(1, clock, hot(), small)
    assert sum([(await one.check(WHO)).allowed for _ in range(400)]) == 300
    assert store.asked < 250


async def test_what_is_held_is_settled_where_it_was_taken(clock: ManualClock) -> None:
    """A decision that cost no call can be settled and given back all the same."""
    _, (one,) = workers(1, clock, hot(refund_on=500))
    decisions = [await one.check(WHO) for _ in range(20)]
    before = (await one.peek(WHO)).limits[0].remaining
    await decisions[-1].settle({"hot": 30})
    assert (await one.peek(WHO)).limits[0].remaining == before - 29
    await decisions[-1].receipts[0].refund(500)
    await one._guard.absence.drain()
    assert (await one.peek(WHO)).limits[0].remaining == before + 1


async def test_a_slot_that_closes_takes_what_was_left(clock: ManualClock) -> None:
    """Units are spent only while their slot is open; after it the store is asked again."""
    store, (one,) = workers(1, clock, hot("64000/minute"))
    for _ in range(30):
        await one.check(WHO)
    clock.advance(seconds=1)
    asked = store.asked
    await one.check(WHO)
    assert store.asked == asked + 1


async def test_a_store_that_goes_away_loses_nothing_that_is_held(clock: ManualClock) -> None:
    """What was spent of what is held, for a request that could not be decided, is put back."""

    class Gone(Far):
        away = False

        async def submit(self, request: Request) -> Answer:
            if self.away:
                raise StoreError("away")
            return await super().submit(request)

    store = Gone(clock)
    cold = Limit(name="cold", rate="1000/minute", per="org")
    one = Limiter(RateLimitSettings(limits=[hot(), cold]), store, clock)
    for _ in range(20):
        await one.check(WHO)
    held = one._guard._ahead._held["hot", "rl:{o}:hot:60:o"]  # type: ignore[union-attr]
    before, store.away = held.units, True
    assert before > 0
    assert (await one.check(WHO)).degraded
    assert held.units == before


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_is_cancelled_leaves_nothing_locked(redis_url: str, clock: ManualClock, turns: int) -> None:
    """On a real Redis: all cancelled at some moment, and the key is taken ahead again."""
    async with Limiter(RateLimitSettings(limits=[hot()]), RedisStore(redis_url, clock=clock, timeout=10), clock) as one:
        await asyncio.gather(*(one.check(WHO) for _ in range(5)))
        tasks = [asyncio.create_task(one.check(WHO)) for _ in range(50)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await one.peek(WHO)  # Behind all that was sent.
        await one._guard.absence.drain()
        kept = 5 + sum(not isinstance(each, BaseException) for each in done)
        (held,) = one._guard._ahead._held.values()  # type: ignore[union-attr]
        assert not held.asking
        assert (await one.peek(WHO)).limits[0].remaining == 1000 - kept - held.units


async def test_what_was_not_granted_is_not_held(clock: ManualClock) -> None:
    """Where another limit refuses, the units that were asked for with it were not taken, and nobody spends them."""
    level = Quota(name="level", limit=1, per="org", paths="/level")
    store = Far(clock)
    one = Limiter(RateLimitSettings(limits=[hot("200/minute")], quotas=[level]), store, clock)
    for _ in range(40):  # A full level is not remembered: each of these asks the store again.
        await one.check(WHO, endpoint="/level")
    free = [(await one.check(WHO, endpoint="/free")).allowed for _ in range(400)]
    assert sum(free) == 200 - 1
