"""Prefetch: far fewer calls for a hot key, and never one unit beyond its limit."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Identity, Limit, Limiter, Quota, RateLimitSettings, RedisStore
from ratelimit.enforcement.prefetch import MAX_PREFETCHED_KEYS, PrefetchedUnits, PrefetchPool
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.stores.messages import StoreRequest
from ratelimit.testing import ManualClock
from tests.support.stores import RemoteStore, most_in_windows

CALLER = Identity(org="o")


def hot(rate: str = "1000/minute", **more: Any) -> Limit:
    return Limit(name="hot", rate=rate, per="org", prefetch=100, **more)


def workers(count: int, clock: ManualClock, *limits: Limit) -> tuple[RemoteStore, list[Limiter]]:
    store = RemoteStore(clock)
    return store, [Limiter(RateLimitSettings(limits=list(limits)), store, clock) for _ in range(count)]


def held_by(limiter: Limiter) -> PrefetchedUnits:
    """Return the units of the one key that is held."""
    assert limiter.enforcer.prefetch_pool is not None
    (held,) = limiter.enforcer.prefetch_pool.held.values()
    return held


async def test_a_hot_key_costs_a_tenth_of_the_calls(clock: ManualClock) -> None:
    """Four workers, eight thousand requests of one organization in two seconds: hundreds of calls."""
    store, four = workers(4, clock, hot("1000000/minute"))
    for n in range(8000):
        if n % 4 == 0:
            clock.advance(ms=1)
        assert (await four[n % 4].check(CALLER)).allowed
    assert store.calls < 800


async def test_a_worker_alone_gets_all_of_a_limit(clock: ManualClock) -> None:
    """Near the limit each unit is asked for by itself: 1000 requests are served, and no more."""
    store, (one,) = workers(1, clock, hot())
    decisions = [await one.check(CALLER) for _ in range(1100)]
    assert [decision.allowed for decision in decisions] == [True] * 1000 + [False] * 100
    assert [limit.limit for limit in decisions[-1].violated] == [1000]
    assert store.calls < 350


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
                if (await three[worker].check(CALLER)).allowed:
                    spent.append((clock() // 1000, 1))
        return spent

    spent = asyncio.run(play())
    for k in range(1, 4):
        assert most_in_windows(spent, k * 1000) <= k * limit + int(limit * burst)


async def test_remaining_is_never_too_high(clock: ManualClock) -> None:
    """Units that a worker holds count as spent: `remaining` is at most what the store has read last."""
    _, (one,) = workers(1, clock, hot())
    for n in range(300):
        decision = await one.check(CALLER)
        assert decision.limits[0].remaining <= 1000 - (n + 1)
        assert (decision.limits[0].cost, decision.binding) == (1, decision.limits[0])


async def test_a_refused_request_spends_no_held_units(clock: ManualClock) -> None:
    """All or nothing holds for prefetched units too, whichever limit refuses."""
    narrow = Limit(name="narrow", rate="50/minute", per="org")
    _, (one,) = workers(1, clock, hot(), narrow)
    assert sum([(await one.check(CALLER)).allowed for _ in range(200)]) == 50
    decision = await one.peek(CALLER)
    assert [limit.policy for limit in decision.violated] == ["narrow"]
    assert 1000 - decision.limits[0].remaining - held_by(one).units == 50


async def test_several_held_limits_are_spent_together(clock: ManualClock) -> None:
    """Two limits with prefetch, one of them small: calls stay few, and both stay exact."""
    small = Limit(name="small", rate="300/minute", per="org", prefetch=100)
    store, (one,) = workers(1, clock, hot(), small)
    assert sum([(await one.check(CALLER)).allowed for _ in range(400)]) == 300
    assert store.calls < 250


async def test_a_decision_from_held_units_can_be_settled(clock: ManualClock) -> None:
    """A decision that cost no call is corrected in the bucket in which its units were taken."""
    _, (one,) = workers(1, clock, hot(refund_on=500))
    decisions = [await one.check(CALLER) for _ in range(20)]
    before = (await one.peek(CALLER)).limits[0].remaining
    await decisions[-1].settle({"hot": 30})
    assert (await one.peek(CALLER)).limits[0].remaining == before - 29
    await decisions[-1].settlements[0].refund(500)
    await one.enforcer.drain()
    assert (await one.peek(CALLER)).limits[0].remaining == before + 1


async def test_held_units_are_lost_when_their_bucket_closes(clock: ManualClock) -> None:
    """They may be spent only while it is open; after that the store is asked again."""
    store, (one,) = workers(1, clock, hot("64000/minute"))
    for _ in range(30):
        await one.check(CALLER)
    clock.advance(seconds=1)
    calls = store.calls
    await one.check(CALLER)
    assert store.calls == calls + 1


async def test_a_failed_call_puts_held_units_back(clock: ManualClock) -> None:
    """Units that were spent for a request that the store did not decide are held again."""
    store = RemoteStore(clock)
    cold = Limit(name="cold", rate="1000/minute", per="org")
    one = Limiter(RateLimitSettings(limits=[hot(), cold]), store, clock)
    for _ in range(20):
        await one.check(CALLER)
    held = held_by(one)
    before, store.is_down = held.units, True
    assert before > 0
    assert (await one.check(CALLER)).degraded
    assert held.units == before


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_caller_leaves_nothing_locked(redis_url: str, clock: ManualClock, turns: int) -> None:
    """On a real Redis: all callers are cancelled at some moment, and units of the key can be prefetched again."""
    async with Limiter(RateLimitSettings(limits=[hot()]), RedisStore(redis_url, clock=clock, timeout=10), clock) as one:
        await asyncio.gather(*(one.check(CALLER) for _ in range(5)))
        tasks = [asyncio.create_task(one.check(CALLER)) for _ in range(50)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await one.peek(CALLER)  # It is answered after every call that was sent.
        await one.enforcer.drain()
        kept = 5 + sum(not isinstance(each, BaseException) for each in done)
        held = held_by(one)
        assert not held.is_locked
        assert (await one.peek(CALLER)).limits[0].remaining == 1000 - kept - held.units


async def test_units_of_a_refused_request_are_not_held(clock: ManualClock) -> None:
    """Where another limit refuses, the units that were asked for with it were not taken, and are never spent."""
    level = Quota(name="level", limit=1, per="org", paths="/level")
    store = RemoteStore(clock)
    one = Limiter(RateLimitSettings(limits=[hot("200/minute")], quotas=[level]), store, clock)
    for _ in range(40):  # The rejection of a level is not cached: each of these asks the store.
        await one.check(CALLER, endpoint="/level")
    free = [(await one.check(CALLER, endpoint="/free")).allowed for _ in range(400)]
    assert sum(free) == 200 - 1


async def test_an_attempt_locks_a_key_until_it_ends(clock: ManualClock) -> None:
    """Only one request at a time asks for more units of a key; the others ask for their own cost."""
    store, pool = RemoteStore(clock), PrefetchPool()
    charge = Charge(EffectiveRate(policy="hot", scope="org", limit=1000, window=60, prefetch=100), "k")

    async def submit(charges: Any) -> Any:
        return await store.submit(StoreRequest(charges))

    for _ in range(2):
        await pool.charge([charge], clock(), submit)
    (held,) = pool.held.values()
    held.units = 0
    first, second = pool.acquire([charge], clock()), pool.acquire([charge], clock())
    assert ([each.cost > 1 for each in first.asked], [each.cost for each in second.asked]) == ([True], [1])
    assert held.is_locked
    first.unlock()
    assert not held.is_locked
    assert pool.acquire([charge], clock(), more=False).asked == [charge]


async def test_the_keys_that_are_held_are_bounded(clock: ManualClock) -> None:
    """Beyond the bound all are dropped: their units are lost for the window, and no limit is exceeded."""
    store, pool = RemoteStore(clock), PrefetchPool()
    limit = EffectiveRate(policy="hot", scope="org", limit=1000, window=60, prefetch=100)

    async def submit(charges: Any) -> Any:
        return await store.submit(StoreRequest(charges))

    for n in range(MAX_PREFETCHED_KEYS + 1):
        await pool.charge([Charge(limit, f"k{n}")], clock(), submit)
    assert len(pool.held) == 1
