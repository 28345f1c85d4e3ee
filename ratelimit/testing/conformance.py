"""The conformance suite of stores: the tests that every store has to pass, third-party ones included."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

from ratelimit.model.charge import Charge
from ratelimit.model.kinds import NEVER
from ratelimit.stores.base import Store
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.messages import Operation
from ratelimit.testing.clock import ManualClock
from ratelimit.testing.factories import (
    concurrency_limit,
    counted_together,
    fresh_key,
    pace_limit,
    quota_limit,
    window_limit,
    windowed,
)
from ratelimit.testing.one_request import charge_all, charge_one, read, submit, used_units
from ratelimit.testing.random_requests import RequestGenerator

Scenario = Callable[[Any, Store, ManualClock], Awaitable[None]]


def _scenario(play: Scenario) -> Callable[[Any], None]:
    """Turn a coroutine function on a store and its clock into a test that needs no plugin for asyncio."""

    def test(self: "StoreConformance") -> None:
        async def run() -> None:
            clock = ManualClock()
            store = self.make_store(clock)
            if not isinstance(store, Store):
                raise TypeError(f"make_store has to return a Store (and must not be async), not {store!r:.100}")
            try:
                await play(self, store, clock)
            finally:
                await store.aclose()

        asyncio.run(run())

    test.__name__, test.__doc__ = getattr(play, "__name__", "test"), play.__doc__
    return test


class StoreConformance:
    """Derive from this and make a store, and pytest runs the whole suite on it.

        class TestMyStore(StoreConformance):
            def make_store(self, clock):
                return MyStore(clock=clock)

    The store has to take its time from `clock`, which each test moves. Each test has its own store, event loop and keys.
    """

    def make_store(self, clock: ManualClock) -> Store:
        """Return a store that takes its time from `clock`."""
        raise NotImplementedError

    @_scenario
    async def test_limits_are_returned_in_order(self, store: Store, clock: ManualClock) -> None:
        """One service limit for each charge, in their order, with all of its fields."""
        a, b = window_limit(5, 60, policy="a"), window_limit(100, 3600, 25, policy="b")
        first, second = await charge_all(store, Charge(a, fresh_key(), 2), Charge(b, fresh_key()))
        assert (first.policy, first.kind, first.scope, first.limit, first.window) == ("a", "limit", "token", 5, 60)
        assert (first.remaining, first.retry_after, first.reset_after, first.cost) == (3, 0.0, 60.001, 2)
        assert (second.policy, second.remaining, second.shadow, second.exhausted) == ("b", 99, False, False)
        assert math.isclose(first.reset_at, clock() / 1e6 + 60.001)

    @_scenario
    async def test_all_or_nothing(self, store: Store, clock: ManualClock) -> None:
        """If one charge of a request is refused, none of its charges is made."""
        wide, narrow = Charge(window_limit(9), fresh_key()), Charge(window_limit(1), fresh_key())
        await charge_all(store, narrow)
        refused = await charge_all(store, wide, narrow, wide)
        assert [limit.remaining for limit in refused] == [9, 0, 9]

    @_scenario
    async def test_shadows_never_refuse(self, store: Store, clock: ManualClock) -> None:
        """A full shadow limit refuses no request and is charged nothing; one with room is charged with the request."""
        shadow, real = Charge(window_limit(1, shadow=True), fresh_key()), Charge(window_limit(2), fresh_key())
        replies = [await charge_all(store, shadow, real) for _ in range(3)]
        assert [[limit.remaining for limit in limits] for limits in replies] == [[0, 1], [0, 0], [0, 0]]
        assert [limits[0].retry_after > 0 for limits in replies] == [False, True, True]
        unused = Charge(window_limit(1, shadow=True), fresh_key())
        assert (await charge_all(store, unused, real))[0].remaining == 1

    @_scenario
    async def test_other_windows_count_along(self, store: Store, clock: ManualClock) -> None:
        """What one of several periods admits is counted in all of them; a new one begins with what the others hold."""
        minute, hour = counted_together([window_limit(3, 60), window_limit(4, 3600)])
        key = fresh_key()
        for _ in range(3):
            assert (await charge_one(store, windowed(minute, key))).retry_after == 0
        assert (await charge_one(store, windowed(minute, key))).retry_after > 0
        clock.advance(seconds=90)
        assert (await charge_one(store, windowed(hour, key))).remaining == 0
        assert (await charge_one(store, windowed(hour, key))).retry_after > 0
        assert (await charge_one(store, windowed(minute, key), peek=True)).remaining == 2
        day = window_limit(5, 86_400, new_until_ms=clock() // 1000 + 1000)
        *_, day = counted_together([window_limit(3, 60), window_limit(4, 3600), day])
        assert (await charge_one(store, windowed(day, key))).remaining == 0

    @_scenario
    async def test_peek_changes_nothing(self, store: Store, clock: ManualClock) -> None:
        """A peek leaves a key as it is, whether or not the key exists."""
        charge = Charge(window_limit(3), fresh_key())
        assert (await charge_one(store, charge, peek=True)).remaining == 3
        await charge_one(store, charge._replace(cost=2))
        clock.advance(seconds=5)
        for _ in range(3):
            assert (await charge_one(store, charge, peek=True)).remaining == 1

    @_scenario
    async def test_large_numbers_are_exact(self, store: Store, clock: ManualClock) -> None:
        """Numbers of 15 digits are exact, also where a small limit grows into a large one within a window."""
        huge, key = window_limit(10**15 - 1, 60, 10**14), fresh_key()
        assert (await charge_one(store, Charge(window_limit(10), key, 7))).remaining == 3
        clock.advance(seconds=2)
        limit = await charge_one(store, Charge(huge, key, 999_999_999_999_990))
        assert limit.remaining == 10**15 - 1 - 999_999_999_999_990 - 7
        limit = await charge_one(store, Charge(huge, key, 10**14 + 3), peek=True)
        assert limit.retry_after == 58.033  # 64 buckets of 938 ms cover the minute, and a little more.
        assert (await charge_one(store, Charge(huge, key, 2 * 10**15))).retry_after == math.inf

    @_scenario
    async def test_a_limit_of_zero_refuses(self, store: Store, clock: ManualClock) -> None:
        """A limit of 0 refuses for good, and stores nothing."""
        limit = await charge_one(store, Charge(window_limit(0), fresh_key()))
        assert (limit.remaining, limit.retry_after, limit.reset_after) == (0, math.inf, 0.0)

    @_scenario
    async def test_concurrent_requests_share_a_limit(self, store: Store, clock: ManualClock) -> None:
        """Of three hundred concurrent requests of one unit, exactly as many are admitted as there are units."""
        charge = Charge(window_limit(100), fresh_key())
        limits = await asyncio.gather(*(charge_one(store, charge) for _ in range(300)))
        assert sorted(limit.remaining for limit in limits) == [0] * 201 + list(range(1, 100))

    @_scenario
    async def test_a_clock_that_steps_back(self, store: Store, clock: ManualClock) -> None:
        """After a step back, what was used still counts, and for no longer than a window and a bucket."""
        charge = Charge(window_limit(3, 60), fresh_key())
        await charge_one(store, charge)
        for seconds in (-0.5, -3600):
            clock.advance(seconds=seconds)
            assert (await charge_one(store, charge)).retry_after == 0
        refused = await charge_one(store, charge)
        assert 60 <= refused.retry_after <= 61
        clock.advance(ms=round(refused.retry_after * 1000))
        assert (await charge_one(store, charge, peek=True)).retry_after == 0

    @_scenario
    async def test_closing_twice_is_allowed(self, store: Store, clock: ManualClock) -> None:
        """`aclose` may be called twice, also before anything was charged."""
        await store.aclose()
        await store.aclose()

    @_scenario
    async def test_settled_overage_reduces_the_next_window(self, store: Store, clock: ManualClock) -> None:
        """A charge that was settled above the limit counts as burst; one that was settled below it does not."""
        for first, settled, then in ((5, 15, 5), (15, 0, 10)):
            charge = Charge(window_limit(10, 1, 5), fresh_key())
            charged_at = (await submit(store, charge._replace(cost=first), Operation.CHARGE)).store_ms
            await submit(store, charge._replace(cost=settled - first), Operation.ADJUST, 0, charged_at)
            clock.advance(ms=1001)
            admitted = charge._replace(cost=then + (0 if settled else 5))
            assert (await charge_one(store, admitted, peek=True)).retry_after == 0
            assert (await charge_one(store, charge._replace(cost=then + 6), peek=True)).retry_after > 0

    @_scenario
    async def test_the_newest_units_are_released_first(self, store: Store, clock: ManualClock) -> None:
        """A release takes units off the newest entries, so that the window empties as early as possible."""
        charge = Charge(window_limit(10, 60), fresh_key())
        await charge_one(store, charge._replace(cost=4))
        clock.advance(seconds=30)
        await charge_one(store, charge._replace(cost=4))
        await submit(store, charge._replace(cost=-5), Operation.RELEASE)
        clock.advance(ms=30_001)
        assert await used_units(store, charge) == 0

    @_scenario
    async def test_a_settlement_may_exceed_four_bytes(self, store: Store, clock: ManualClock) -> None:
        """Under a small limit, a charge that is settled to more than 2³² units is counted exactly."""
        charge = Charge(window_limit(100, 60), fresh_key())
        charged_at = (await submit(store, charge, Operation.CHARGE)).store_ms
        clock.advance(seconds=5)
        await charge_one(store, charge)
        await submit(store, charge._replace(cost=2**33), Operation.ADJUST, 0, charged_at)
        assert await used_units(store, charge) == 2**33 + 2

    @_scenario
    async def test_a_burst_counts_in_every_charge(self, store: Store, clock: ManualClock) -> None:
        """Overage that is carried from the previous window counts in every charge, also in those of small cost."""
        charge = Charge(window_limit(5, 1, 5), fresh_key())
        waits = []
        for pause, cost in ((1000, 5), (1, 4), (984, 2), (984, 1), (0, 3), (984, 1), (500, 3), (0, 3)):
            clock.advance(ms=pause)
            await charge_one(store, charge._replace(cost=cost))
            waits.append((await charge_one(store, charge._replace(cost=6), peek=True)).retry_after)
        assert waits == [1.001, 1.0, 0.016, 0.034, 0.034, 0.017, 0.501, 2.002]

    @_scenario
    async def test_expired_entries_do_not_count(self, store: Store, clock: ManualClock) -> None:
        """After the limit has changed, expired entries do not count, even beside a bucket that is still open."""
        key = fresh_key()
        small, large = window_limit(50, 1), window_limit(300, 1)
        for pause, limit, cost in ((0, small, 8), (1008, large, 7), (4, large, 1)):
            clock.advance(ms=pause)
            charged = await charge_one(store, Charge(limit, key, cost))
        assert charged.remaining == 300 - 8

    @_scenario
    async def test_a_quota_resets_with_its_period(self, store: Store, clock: ManualClock) -> None:
        """Units count until the hour ends, in UTC, and can be read as those of the previous period for an hour more."""
        charge = Charge(quota_limit(5, "hour"), fresh_key())
        clock.advance(seconds=3600 - clock() / 1e6 % 3600)
        await charge_one(store, charge._replace(cost=5))
        clock.advance(seconds=3599)
        limit = await charge_one(store, charge)
        assert (limit.remaining, limit.retry_after, limit.reset_after) == (0, 1.0, 1.0)
        clock.advance(seconds=1)
        assert (await charge_one(store, charge)).remaining == 4
        assert await read(store, charge, Operation.USAGE) == (1, 3_600_000, 5)

    @_scenario
    async def test_a_level_falls_by_release_alone(self, store: Store, clock: ManualClock) -> None:
        """A level never expires. Releasing more than is counted is refused, and releases nothing."""
        charge = Charge(quota_limit(5, None), fresh_key())
        await charge_one(store, charge._replace(cost=5))
        clock.advance(seconds=10**8)
        assert (await charge_one(store, charge, peek=True)).retry_after == math.inf
        _, _, wait_ms = await read(store, charge._replace(cost=-6), Operation.RELEASE)
        assert wait_ms == NEVER
        await submit(store, charge._replace(cost=-2), Operation.RELEASE)
        assert await used_units(store, charge) == 3

    @_scenario
    async def test_permits_are_held_by_lease(self, store: Store, clock: ManualClock) -> None:
        """A permit is held until its holder releases it, or does not renew it in time."""
        permit = Charge(concurrency_limit(1, 5000), fresh_key())
        for holder, admitted in ((1, True), (2, False)):
            _, _, wait_ms = await read(store, permit, Operation.ACQUIRE, holder)
            assert (wait_ms <= 0) == admitted
        clock.advance(seconds=4)
        await submit(store, permit, Operation.RENEW, 1)
        clock.advance(seconds=4)
        assert await used_units(store, permit) == 1
        for holder, still_used in ((2, 1), (1, 0)):
            await submit(store, permit._replace(cost=-1), Operation.ADJUST, holder)
            assert await used_units(store, permit) == still_used
        await submit(store, permit, Operation.ACQUIRE, 3)
        clock.advance(seconds=5)
        assert await used_units(store, permit) == 0

    @_scenario
    async def test_reservations_are_evenly_spaced(self, store: Store, clock: ManualClock) -> None:
        """Reservations of a pace start at even intervals, and the last ones may be cancelled."""
        charge = Charge(pace_limit(10), fresh_key())
        readings = [await read(store, charge) for _ in range(3)]
        assert [(start - clock(), wait) for start, wait, _ in readings] == [(gap, gap) for gap in (0, 100_000, 200_000)]
        bounded = Charge(pace_limit(10, 1, 250), charge.key)
        _, _, over_ms = await read(store, bounded)
        assert over_ms == 50
        last, _, _ = readings[2]
        await submit(store, charge._replace(cost=-1), Operation.ADJUST, last)
        start, _, _ = await read(store, bounded)
        assert start == last

    @_scenario
    async def test_shared_maps_are_versioned(self, store: Store, clock: ManualClock) -> None:
        """Each change gives a map a new version; reading a map whose version is known returns `None`."""
        name = f"rl:{{{fresh_key()}}}:notes"
        first = await store.read_map(name, None)
        assert first is not None
        assert dict(first.values) == {}
        await store.put_entry(name, "a", b"1")
        second = await store.read_map(name, first.version)
        assert second is not None
        assert (dict(second.values), await store.read_map(name, second.version)) == ({"a": b"1"}, None)
        await store.put_entry(name, "a", None)
        third = await store.read_map(name, second.version)
        assert third is not None
        assert third.version not in {first.version, second.version}
        assert dict(third.values) == {}

    @_scenario
    async def test_it_replies_as_the_memory_store_does(self, store: Store, clock: ManualClock) -> None:
        """Twenty random sequences of requests of every kind have the readings of `MemoryStore` at each step."""
        for seed in range(20):
            requests, memory = RequestGenerator(seed), MemoryStore(clock=clock)
            for _ in range(60):
                clock.advance(ms=requests.pause_ms())
                request = requests.request()
                reply, expected = await store.submit(request), memory.run(request)
                assert reply.readings == expected.readings, f"sequence {seed}: {request}"
                requests.record(request, expected)
