"""Reservations of a pace: evenly spaced, first come first served, and cancelled; in both stores alike."""

from itertools import pairwise
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectivePace
from ratelimit.model.kinds import NEVER
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.stores import SyncMemoryStore, SyncRedisStore, SyncStore, fresh_key, pace_limit, window_limit

PACES = [
    pace_limit(100),
    pace_limit(300),
    pace_limit(7),
    pace_limit(1, 60),
    pace_limit(999_983),
    pace_limit(100, 1, 50),
    pace_limit(100, 1, 0),
    pace_limit(3, 1, 2000),
]
WAITS = [0, 0, 0, 1, 3, 9, 10, 11, 50, 142, 143, 333, 1000, 60_000, 60_001, -1, -40]


class Step(NamedTuple):
    """What happens next: a wait in milliseconds, an operation under a limit, and which reservation is cancelled."""

    wait: int
    operation: Operation
    limit: EffectivePace
    earlier: int


steps = st.builds(
    Step,
    st.sampled_from(WAITS),
    st.sampled_from(
        [Operation.CHARGE] * 5 + [Operation.ADJUST] * 4 + [Operation.PEEK, Operation.USAGE, Operation.RELEASE]
    ),
    st.sampled_from(PACES),
    st.integers(0, 9),
)


def reserve(store: SyncStore, limit: EffectivePace, key: str) -> tuple[int, int, int]:
    """Return the start of the reservation, the wait for it (both µs), and by how much (ms) that is too long."""
    return store.run(StoreRequest([Charge(limit, key)])).readings[0]


def cancel(store: SyncStore, limit: EffectivePace, key: str, start: int) -> None:
    store.run(StoreRequest([Charge(limit, key, -1)], Operation.ADJUST, start))


@settings(max_examples=200)
@given(history=st.lists(steps, min_size=5, max_size=60))
def test_memory_and_redis_give_the_same_reservations(sync_redis: SyncRedisStore, history: list[Step]) -> None:
    """At every step of any history, for rates that change and reservations that are cancelled in any order."""
    memory, key, made = SyncMemoryStore(), fresh_key(), [(PACES[0], 1)]
    memory.clock.now = sync_redis.clock.now
    for step in history:
        for each in (memory, sync_redis):
            each.clock.advance(ms=step.wait)
        cost = -1 if step.operation == Operation.RELEASE else 1
        request = StoreRequest([Charge(step.limit, key, cost)], step.operation)
        if step.operation == Operation.ADJUST:
            limit, start = made[-1 - step.earlier % len(made)]
            request = StoreRequest([Charge(limit, key, -1)], Operation.ADJUST, start)
        reply = memory.run(request)
        assert (sync_redis.run(request).readings, request.operation) == (reply.readings, request.operation)
        start, _, over_ms = reply.readings[0]
        if step.operation == Operation.CHARGE and over_ms == 0:
            made.append((step.limit, start))


@settings(max_examples=50)
@given(batches=st.lists(st.lists(st.sampled_from(PACES), min_size=1, max_size=20), max_size=5))
def test_a_batch_reserves_as_single_calls_do(sync_redis: SyncRedisStore, batches: list[list[EffectivePace]]) -> None:
    """Reservations that travel in one call get the starts that they would get one after the other."""
    memory, key = SyncMemoryStore(), fresh_key()
    memory.clock.now = sync_redis.clock.now
    for batch in batches:
        requests = [StoreRequest([Charge(limit, key)]) for limit in batch]
        assert sync_redis.batch(requests) == [memory.run(request) for request in requests]
        for each in (memory, sync_redis):
            each.clock.advance(ms=25)


@given(
    limit=st.integers(1, 2000),
    period=st.sampled_from([1, 7, 60, 3600]),
    waits=st.lists(st.integers(0, 3) | st.integers(0, 4000), min_size=2, max_size=60),
)
def test_reservations_are_evenly_spaced_and_none_is_wasted(limit: int, period: int, waits: list[int]) -> None:
    """Each starts at once or one interval after the last, whichever is later; n intervals are exact to the µs."""
    store, pace, key = SyncMemoryStore(), pace_limit(limit, period), fresh_key()
    interval, begun, number = period * 1_000_000 / limit, 0, 0
    for wait in waits:
        store.clock.advance(ms=wait)
        now = store.clock()
        start, wait_us, _ = reserve(store, pace, key)
        if now > begun + int(interval * number):
            begun, number = now, 0
        assert start == begun + number * period * 1_000_000 // limit
        assert wait_us == start - now
        number += 1


def test_a_second_holds_its_number_exactly() -> None:
    """300 a second are 3,333 µs apart, and the 301st starts a second after the first."""
    store, key = SyncMemoryStore(), fresh_key()
    starts = [reserve(store, pace_limit(300), key)[0] for _ in range(301)]
    assert starts[300] - starts[0] == 1_000_000
    assert {after - before for before, after in pairwise(starts)} == {3333, 3334}


def test_a_reservation_beyond_the_bound_is_not_made(sync_store: SyncStore) -> None:
    """A caller that would wait too long reserves nothing, and learns by how much the wait is too long."""
    key = fresh_key()
    readings = [reserve(sync_store, pace_limit(100, 1, 25), key) for _ in range(5)]
    assert [wait_us for _, wait_us, _ in readings] == [0, 10_000, 20_000, 30_000, 30_000]
    assert [over_ms for *_, over_ms in readings] == [0, 0, 0, 5, 5]
    assert reserve(sync_store, pace_limit(100), key)[1] == 30_000


@given(order=st.permutations(range(6)), kept=st.integers(0, 5))
def test_cancelled_reservations_at_the_end_are_free_again(order: list[int], kept: int) -> None:
    """In whatever order: the next one follows the last that is still held, and no caller is overtaken."""
    for limit in (100, 300):
        store, pace, key = SyncMemoryStore(), pace_limit(limit), fresh_key()
        starts = [reserve(store, pace, key)[0] for _ in range(6)]
        for number in order:
            if number > kept:
                cancel(store, pace, key, starts[number])
        assert abs(reserve(store, pace, key)[0] - (starts[kept] + 1_000_000 // limit)) <= 1
        cancel(store, pace, key, starts[0])
        assert reserve(store, pace, key)[0] > starts[kept] + 1_000_000 // limit


def test_a_run_of_cancelled_reservations_is_one_gap(sync_store: SyncStore) -> None:
    """A thousand callers that are cancelled, oldest first, leave nothing behind."""
    key, pace = fresh_key(), pace_limit(100)
    starts = [reserve(sync_store, pace, key)[0] for _ in range(1000)]
    for start in starts[1:]:
        cancel(sync_store, pace, key, start)
    assert reserve(sync_store, pace, key)[0] == starts[1]


def test_a_missed_reservation_can_be_cancelled(sync_store: SyncStore) -> None:
    """One that was never used does not delay the next."""
    key, pace = fresh_key(), pace_limit(1, 60)
    start, *_ = reserve(sync_store, pace, key)
    sync_store.clock.advance(seconds=2)
    cancel(sync_store, pace, key, start)
    assert reserve(sync_store, pace, key)[1] == 0


def test_peek_and_usage_reserve_nothing(sync_store: SyncStore) -> None:
    """They read how long the wait for the next reservation is; `RELEASE` is refused."""
    key, charge = fresh_key(), Charge(pace_limit(100), fresh_key())
    sync_store.run(StoreRequest([charge]))
    for _ in range(2):
        assert sync_store.run(StoreRequest([charge], Operation.PEEK)).readings[0][1:] == (10_000, 0)
        assert sync_store.run(StoreRequest([charge], Operation.USAGE)).readings[0] == (0, 10, 0)
    assert sync_store.run(StoreRequest([Charge(charge.limit, key)], Operation.PEEK)).readings[0][1:] == (0, 0)
    assert sync_store.run(StoreRequest([charge._replace(cost=-1)], Operation.RELEASE)).readings[0][2] == NEVER


def test_a_request_that_another_limit_refuses_reserves_nothing(sync_store: SyncStore) -> None:
    """A pace and a limit are charged in one step."""
    pace, limit = Charge(pace_limit(100), fresh_key()), Charge(window_limit(1), fresh_key())
    readings = [sync_store.run(StoreRequest([limit, pace])).readings for _ in range(2)]
    assert [each[0][2] > 0 for each in readings] == [False, True]
    assert readings[1][1][1] == 10_000
    assert sync_store.run(StoreRequest([pace])).readings[0][1] == 10_000
