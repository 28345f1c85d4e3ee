"""The rejection cache: full limits are not asked for again, and no request is refused that the store would admit."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Identity, Limiter, MemoryStore, RateLimitSettings
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.rejection_cache import MAX_AGE_US, MAX_REJECTIONS, RejectionCache
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import concurrency_limit, quota_limit, window_limit
from tests.support.stores import RemoteStore


def limiter_with(store: RemoteStore, clock: ManualClock, **settings: Any) -> Limiter:
    return Limiter(RateLimitSettings.model_validate(settings), store, clock)


ORG = {"name": "org", "rate": "2/minute", "per": "org"}
TOKEN = {"name": "token", "rate": "100/minute", "per": "token"}


def caller(token: str = "t", **more: Any) -> Identity:
    return Identity(token=token, org="o", **more)


async def test_a_flood_of_rejections_costs_one_call_a_second(clock: ManualClock) -> None:
    """Whichever tokens ask: their organization is known to be full, and the wait stays exact."""
    store = RemoteStore(clock)
    limiter = limiter_with(store, clock, limits=[TOKEN, ORG])
    for _ in range(3):
        await limiter.check(caller())
    first = await limiter.check(caller())
    assert store.calls == 3
    for n in range(100):
        clock.advance(ms=9)
        decision = await limiter.check(caller(f"t{n}"))
        assert [limit.policy for limit in decision.violated] == ["org"]
        assert decision.retry_after == pytest.approx(first.retry_after - 0.009 * (n + 1))
        assert decision.violated[0].reset_at == first.violated[0].reset_at
    assert store.calls == 3
    clock.advance(ms=100)
    await limiter.check(caller())
    assert store.calls == 4


async def test_a_peek_is_never_answered_from_the_cache(clock: ManualClock) -> None:
    """`peek` asks the store, and its reply is not cached either."""
    store = RemoteStore(clock)
    limiter = limiter_with(store, clock, limits=[ORG])
    for _ in range(3):
        await limiter.check(caller())
    assert len((await limiter.peek(caller())).limits) == 1
    assert store.calls == 4


async def test_a_correction_drops_the_rejection(clock: ManualClock) -> None:
    """After a settlement or a release in this process the store is asked again."""
    store = RemoteStore(clock)
    limiter = limiter_with(
        store, clock, limits=[ORG], quotas=[{"name": "q", "limit": 9, "period": "day", "per": "org"}]
    )
    decision = await limiter.check(caller())
    for _ in range(2):
        await limiter.check(caller())
    await decision.settle({"org": 0})
    assert (await limiter.check(caller())).allowed
    assert not (await limiter.check(caller())).allowed
    await limiter.release("org", caller())
    assert (await limiter.check(caller())).allowed


async def test_a_raised_limit_holds_at_once(clock: ManualClock) -> None:
    """An override is another limit, and no rejection of it is cached."""
    store = RemoteStore(clock)
    limiter = limiter_with(store, clock, limits=[ORG])
    for _ in range(3):
        await limiter.check(caller())
    await limiter.overrides.set(policy="org", key={"org": "o"}, rate="3/minute")
    assert (await limiter.check(caller())).allowed
    assert not (await limiter.check(caller())).allowed
    assert (await limiter.check(caller(rates={"org": "4/minute"}))).allowed


async def test_rejections_of_permits_and_levels_are_not_cached(clock: ManualClock) -> None:
    """They may become free at any moment."""
    store = RemoteStore(clock)
    policies = {
        "quotas": [{"name": "level", "limit": 1, "per": "org", "paths": "/level"}],
        "concurrency": [{"name": "runs", "limit": 1, "per": "org", "paths": "/runs"}],
    }
    limiter = limiter_with(store, clock, **policies)
    for path in ("/level", "/runs"):
        for _ in range(5):
            await limiter.check(caller(), endpoint=path)
    assert store.calls == 10


POLICIES: list[EffectiveLimit] = [
    window_limit(3, 1, policy="a"),
    window_limit(70, 1, 20, policy="b"),
    quota_limit(5, "hour"),
    concurrency_limit(2, 700),
]
steps = st.tuples(
    st.sampled_from([0, 0, 1, 16, 300, 499, 700, 999, 1000, 1017, 3_600_000]),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=3, unique_by=lambda choice: choice[0]
    ),
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=60))
def test_no_request_is_refused_that_the_store_would_admit(history: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """At every rejection from the cache the store would refuse too, for at least as long."""
    clock = ManualClock()
    store, cache = MemoryStore(clock=clock), RejectionCache()
    for number, (wait, chosen) in enumerate(history):
        clock.advance(ms=wait)
        charges = [Charge(POLICIES[i], f"k{i}", 1 if i == 3 else cost) for i, cost in chosen]
        read = store.run(StoreRequest(charges, Operation.PEEK)).service_limits(charges)
        if cached := cache.lookup(charges, clock()):
            decision = Decision.from_limits(read)
            assert not decision.allowed
            assert Decision.from_limits(cached).retry_after <= decision.retry_after + 1e-6
            continue
        limits = store.run(StoreRequest(charges, Operation.ACQUIRE, number + 1)).service_limits(charges)
        if any(limit.retry_after for limit in limits):
            cache.store(charges, limits, clock())


def test_the_cache_is_bounded_in_size_and_age() -> None:
    """Ten thousand keys, and a second, at most; a clock that steps back finds nothing."""
    cache, charge = RejectionCache(), Charge(window_limit(1), "k", 2)
    rejections = MemoryStore(clock=ManualClock()).run(StoreRequest([charge])).service_limits([charge])
    for n in range(MAX_REJECTIONS + 5):
        cache.store([charge._replace(key=f"k{n}")], rejections, 1000)
    assert len(cache) <= MAX_REJECTIONS
    last = charge._replace(key=f"k{MAX_REJECTIONS + 4}")
    assert cache.lookup([last], 1000 + MAX_AGE_US - 1)
    assert not cache.lookup([last], 1000 + MAX_AGE_US)
    assert not cache.lookup([last], 999)
    assert not cache.lookup([last._replace(cost=1)], 1000)
    assert not cache.lookup([last._replace(limit=window_limit(1))], 1000)
    cache.invalidate([last])
    assert not cache.lookup([last], 1000)


async def test_a_repeated_request_gets_all_of_its_limits(clock: ManualClock) -> None:
    """The same request gets those that had room too; another one of the same organization the one that refuses it."""
    store = RemoteStore(clock)
    limiter = limiter_with(store, clock, limits=[TOKEN, ORG])
    decisions = [await limiter.check(caller()) for _ in range(4)]
    assert store.calls == 3
    assert [limit.remaining for limit in decisions[3].limits] == [98, 0]
    assert decisions[3] == decisions[2]
    assert [limit.policy for limit in (await limiter.check(caller("other"))).limits] == ["org"]


async def test_many_requests_at_once_are_refused_without_a_call(clock: ManualClock) -> None:
    """A crowd behind a rejection does not reach the store."""
    store = RemoteStore(clock)
    limiter = limiter_with(store, clock, limits=[ORG])
    for _ in range(3):
        await limiter.check(caller())
    decisions = await asyncio.gather(*(limiter.check(caller()) for _ in range(50)))
    assert not any(decision.allowed for decision in decisions)
    assert store.calls == 3


async def test_forced_units_are_counted_above_the_limit(clock: ManualClock) -> None:
    """`force` reaches the store, whatever that has refused before."""
    store = RemoteStore(clock)
    limiter = limiter_with(store, clock, quotas=[{"name": "q", "limit": 2, "period": "day", "per": "org"}])
    for _ in range(3):
        await limiter.consume("q", caller())
    await limiter.consume("q", caller(), 5, force=True)
    assert (await limiter.usage(caller()))[0].used == 7


async def test_of_two_rejections_each_is_reported_as_long_as_it_holds(clock: ManualClock) -> None:
    """With the wait that is left, and never with one below zero."""
    store = RemoteStore(clock)
    short, long = {"name": "s", "rate": "1/second", "per": "org"}, {"name": "l", "rate": "1/minute", "per": "org"}
    limiter = limiter_with(store, clock, limits=[short, long])
    for _ in range(2):
        await limiter.check(caller())
    clock.advance(ms=400)
    await limiter.check(caller("other"))
    clock.advance(ms=700)
    decision = await limiter.check(caller())
    assert [limit.policy for limit in decision.violated] == ["l"]
    assert decision.retry_after == pytest.approx(60.001 - 1.1)


async def test_a_rejection_by_a_level_too_is_not_cached(clock: ManualClock) -> None:
    """The level may become free at any moment, and then a cached decision would be wrong about it."""
    store = RemoteStore(clock)
    level = {"name": "level", "limit": 1, "per": "org"}
    limiter = limiter_with(store, clock, limits=[{**ORG, "rate": "1/minute"}], quotas=[level])
    assert [(await limiter.check(caller())).status for _ in range(3)] == [200, 403, 403]
    await limiter.release("level", caller())
    assert (await limiter.check(caller())).status == 429


async def test_a_full_shadow_alone_rejects_nothing(clock: ManualClock) -> None:
    """A request that only the shadow would refuse is sent and counted."""
    store = RemoteStore(clock)
    limits = [{**ORG, "shadow": True, "rate": "1/minute"}, {**TOKEN, "rate": "2/minute"}]
    limiter = limiter_with(store, clock, limits=limits)
    for _ in range(3):
        await limiter.check(caller())
    assert [limit.policy for limit in (await limiter.check(caller())).violated] == ["token"]
    assert (await limiter.check(caller("other"))).limits[1].remaining == 1


async def test_a_rejection_that_is_cached_during_a_release_is_dropped(clock: ManualClock) -> None:
    """When the release is done, the store is asked again."""

    class Slow(RemoteStore):
        gate: asyncio.Event | None = None

        async def submit(self, request: StoreRequest) -> StoreReply:
            if self.gate is not None and request.operation == Operation.RELEASE:
                await self.gate.wait()
            return await super().submit(request)

    store = Slow(clock)
    limiter = limiter_with(store, clock, limits=[{**ORG, "rate": "1/minute"}])
    await limiter.check(caller())
    store.gate = asyncio.Event()
    releasing = asyncio.create_task(limiter.release("org", caller()))
    await asyncio.sleep(0)
    assert not (await limiter.check(caller())).allowed
    store.gate.set()
    await releasing
    assert (await limiter.check(caller())).allowed


async def test_a_wait_stays_right_where_a_smaller_cost_was_admitted_meanwhile(clock: ManualClock) -> None:
    """A caller that waits as long as it was asked to is admitted, also if less was charged since the rejection."""
    store = RemoteStore(clock)
    limiter = limiter_with(store, clock, limits=[{"name": "org", "rate": "10/minute", "per": "org"}])
    await limiter.check(caller(), cost=3)
    clock.advance(seconds=30)
    await limiter.check(caller(), cost=5)
    assert not (await limiter.check(caller(), cost=5)).allowed
    assert (await limiter.check(caller(), cost=2)).allowed
    clock.advance(ms=500)
    refused = await limiter.check(caller(), cost=5)
    assert not refused.allowed
    clock.advance(ms=round(refused.retry_after * 1000))
    assert (await limiter.check(caller(), cost=5)).allowed
