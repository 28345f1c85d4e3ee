"""The memory store (with `stores.memory_records`): bounded, and free of expired keys without a scan."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import MemoryStore, ServiceLimit
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import concurrency_limit, quota_limit, window_limit


def decide(store: MemoryStore, charges: list[Charge], *, peek: bool = False) -> list[ServiceLimit]:
    return store.run(StoreRequest(charges, Operation.PEEK if peek else Operation.CHARGE)).service_limits(charges)


def test_expired_keys_are_dropped_as_others_are_charged(clock: ManualClock) -> None:
    """Each call drops a few, and in time all are gone; no call scans everything."""
    store = MemoryStore(clock=clock)
    for n in range(1000):
        decide(store, [Charge(window_limit(5, 1), f"old{n}")])
    assert len(store) == 1000
    clock.advance(seconds=10)
    for n in range(200):
        decide(store, [Charge(window_limit(5, 60), f"new{n}")])
    assert len(store) == 200
    assert len(store.expiry_index) == store.expiry_index.entries == 200


def test_a_clock_that_steps_back_finds_an_expired_key_again(clock: ManualClock) -> None:
    """As on Redis, whose keys expire by a clock of their own: no caller gets its window twice."""
    store, limit = MemoryStore(clock=clock), window_limit(5, 1)
    decide(store, [Charge(limit, "k", 5)])
    clock.advance(ms=1500)
    decide(store, [Charge(limit, "other")])
    clock.advance(ms=-700)
    assert decide(store, [Charge(limit, "k")])[0].retry_after > 0


def test_a_key_that_is_used_lives_on(clock: ManualClock) -> None:
    """Expiry follows the last charge, not the first."""
    store, limit = MemoryStore(clock=clock), window_limit(100, 1)
    for _ in range(50):
        clock.advance(ms=100)
        decide(store, [Charge(limit, "busy")])
    assert len(store) == 1
    assert decide(store, [Charge(limit, "busy")], peek=True)[0].remaining == 100 - 11


def test_the_number_of_keys_is_bounded(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond `max_keys`, the key that expires first is evicted, with one line in the log."""
    store = MemoryStore(clock=clock, max_keys=100)
    for n in range(1000):
        clock.advance(ms=1)
        decide(store, [Charge(window_limit(5), f"k{n}")])
    assert len(store) == len(store.expiry_index) == store.expiry_index.entries == 100
    assert [store.holds(f"k{n}") for n in (0, 999)] == [False, True]
    assert all(decide(store, [Charge(window_limit(5), key)], peek=True)[0].remaining < 5 for key in ("k0", "k999"))
    assert len(caplog.messages) == 1


def test_a_key_that_is_charged_once_takes_little_memory() -> None:
    """Callers may be made up: at most 250 bytes for each, where many come."""
    keys, clock = 40_000, ManualClock()
    store, limit = MemoryStore(clock=clock), window_limit(100)
    charges = (Charge(limit, f"rl:{{192.0.2.{n}}}:address:60:192.0.2.{n}") for n in range(keys))
    tracemalloc.start()
    try:
        for charge in charges:
            clock.advance(ms=1)
            decide(store, [charge])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) == keys
    assert taken / keys <= 250


async def test_an_evicted_counter_can_be_emptied(clock: ManualClock) -> None:
    """It begins with nothing then, until it is evicted again; others of its group do not."""
    store, limit = MemoryStore(clock=clock, max_keys=1), window_limit(10)
    decide(store, [Charge(limit, "a", 9)])
    decide(store, [Charge(limit, "b", 9)])
    assert not store.holds("a")
    assert await store.delete(["a"]) == 0
    assert decide(store, [Charge(limit, "a", 8)])[0].remaining == 2
    decide(store, [Charge(limit, "b", 1)])
    assert decide(store, [Charge(limit, "a")], peek=True)[0].remaining <= 2


def test_a_key_in_use_is_not_evicted(clock: ManualClock) -> None:
    """The key that expires first by its last charge is."""
    store, limit = MemoryStore(clock=clock, max_keys=2), window_limit(100)
    decide(store, [Charge(limit, "used")])
    clock.advance(seconds=20)
    decide(store, [Charge(limit, "idle")])
    clock.advance(seconds=20)
    decide(store, [Charge(limit, "used")])
    decide(store, [Charge(limit, "new")])
    assert [store.holds(key) for key in ("used", "idle", "new")] == [True, False, True]


def test_the_overage_of_a_burst_that_is_granted_in_mid_window_is_kept(clock: ManualClock) -> None:
    """A key lives long enough for the overage that a larger burst lets it carry."""
    store, key = MemoryStore(clock=clock), "k"
    decide(store, [Charge(window_limit(100), key)])
    decide(store, [Charge(window_limit(100, 60, 50), key, 149)])
    clock.advance(seconds=70)
    decide(store, [Charge(window_limit(5), "other")])
    assert decide(store, [Charge(window_limit(100, 60, 50), key, 101)], peek=True)[0].retry_after > 0
    assert len(store) == 2


def test_threads_share_one_count(clock: ManualClock) -> None:
    """Several threads admit together what one would."""
    store, limit = MemoryStore(clock=clock), window_limit(3000)

    def spend() -> int:
        return sum(decide(store, [Charge(limit, "k")])[0].retry_after == 0 for _ in range(2000))

    with ThreadPoolExecutor(4) as pool:
        admitted = sum(future.result() for future in [pool.submit(spend) for _ in range(4)])
    assert admitted == 3000


def test_rejections_and_peeks_make_no_keys(clock: ManualClock) -> None:
    """Only admitted charges are stored."""
    store = MemoryStore(clock=clock)
    decide(store, [Charge(window_limit(5), "a")], peek=True)
    decide(store, [Charge(window_limit(5), "b", 6)])
    assert len(store) == 0
    assert repr(store) == "<MemoryStore keys=0>"


def test_empty_levels_and_permits_are_dropped(clock: ManualClock) -> None:
    """A level that is not empty never expires; an empty state means the same as none."""
    store, level, runs = MemoryStore(clock=clock), quota_limit(10, None), concurrency_limit(2)
    for n in range(5):
        decide(store, [Charge(level, f"level{n}", 3)])
        store.run(StoreRequest([Charge(runs, f"runs{n}")], Operation.ACQUIRE, n + 1))
        store.run(StoreRequest([Charge(runs, f"runs{n}", -1)], Operation.ADJUST, n + 1))
    assert len(store) == 5
    clock.advance(seconds=10**9)
    assert [decide(store, [Charge(level, f"level{n}")], peek=True)[0].remaining for n in range(5)] == [7] * 5
    for n in range(5):
        store.run(StoreRequest([Charge(level, f"level{n}", -3)], Operation.RELEASE))
    assert (len(store), len(store.expiry_index)) == (0, 0)


def test_permits_that_come_and_go_leave_one_entry(clock: ManualClock) -> None:
    """A key whose permit is taken and released ten thousand times is listed once."""
    store, runs = MemoryStore(clock=clock), concurrency_limit(2)
    for n in range(10_000):
        clock.advance(ms=1)
        store.run(StoreRequest([Charge(runs, "runs")], Operation.ACQUIRE, n + 1))
        store.run(StoreRequest([Charge(runs, "runs", -1)], Operation.ADJUST, n + 1))
    assert (len(store), len(store.expiry_index)) == (0, 1)


@pytest.mark.parametrize(
    "crowd",
    [
        quota_limit(5, "month"),
        quota_limit(5, None),
        concurrency_limit(5, 90_000),
        window_limit(5, 60, policy="c"),
    ],
)
def test_many_keys_of_one_policy_evict_each_other(clock: ManualClock, crowd: EffectiveLimit) -> None:
    """However many keys of one policy there are, the keys of another stay."""
    store, window = MemoryStore(clock=clock, max_keys=50), window_limit(1)
    for n in range(10):
        decide(store, [Charge(window, f"window{n}")])
    for n in range(500):
        store.run(StoreRequest([Charge(crowd, f"crowd{n}")], Operation.ACQUIRE, n + 1))
        clock.advance(ms=1)
    assert len(store) == 50
    assert not any(decide(store, [Charge(window, f"window{n}")], peek=True)[0].remaining for n in range(10))
    left = decide(store, [Charge(crowd, "crowd499"), Charge(crowd, "crowd0")], peek=True)
    assert all(limit.remaining < 5 for limit in left), "what was used still counts"


def test_the_level_that_was_used_longest_ago_is_evicted(clock: ManualClock) -> None:
    """A busy level is not, however early it was made."""
    store, level = MemoryStore(clock=clock, max_keys=3), quota_limit(100, None)
    for n in range(10):
        decide(store, [Charge(level, "busy")])
        decide(store, [Charge(level, f"level{n}")])
    assert decide(store, [Charge(level, "busy")], peek=True)[0].remaining == 90


def test_a_cleared_store_has_forgotten_all_counters(clock: ManualClock) -> None:
    """As after a restart; the index of expiries is empty too."""
    store, charge = MemoryStore(clock=clock), Charge(window_limit(5), "k", 5)
    decide(store, [charge])
    store.clear()
    assert (len(store), len(store.expiry_index)) == (0, 0)
    assert decide(store, [charge])[0].retry_after == 0


async def test_it_answers_in_process(clock: ManualClock) -> None:
    """`submit_nowait` decides as `submit` does, on the same counters."""
    store, request = MemoryStore(clock=clock), StoreRequest([Charge(window_limit(2), "k")])
    replies = [store.submit_nowait(request), await store.submit(request), store.submit_nowait(request)]
    assert [request.is_refused(reply) for reply in replies] == [False, False, True]


@pytest.mark.parametrize("limit", [window_limit(5), quota_limit(5, "day"), quota_limit(5, None)])
def test_no_invented_caller_flushes_a_counter_that_is_used_up(clock: ManualClock, limit: EffectiveLimit) -> None:
    """Neither his own nor that of others: those that are used least go first."""
    store = MemoryStore(clock=clock, max_keys=100)
    for name in ("own", "other"):
        decide(store, [Charge(limit, name, 5)])
    for number in range(1000):
        decide(store, [Charge(limit, f"invented{number}")])
        clock.advance(ms=1)
    assert (len(store), store.evictions) == (100, 902)
    assert store.holds("own")
    assert [decide(store, [Charge(limit, name)])[0].retry_after > 0 for name in ("own", "other")] == [True, True]


@pytest.mark.parametrize("kind", ["window", "day", "level", "permits"])
@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3), st.integers(0, 40_000)), min_size=40, max_size=150)
)
def test_no_caller_gets_more_where_counters_are_evicted(kind: str, steps: list[tuple[int, int, int]]) -> None:
    """Of a store that keeps four, each caller gets at most what a store that keeps all of them would have given."""
    limit: EffectiveLimit = {
        "window": window_limit(4, burst=2),
        "day": quota_limit(4, "day"),
        "level": quota_limit(4, None),
        "permits": concurrency_limit(4),
    }[kind]
    clock = ManualClock()
    store, admitted = MemoryStore(clock=clock, max_keys=4), dict[str, list[tuple[int, int]]]()
    for number, (caller, cost, wait) in enumerate(steps):
        operation, units = (Operation.ACQUIRE, 1) if kind == "permits" else (Operation.CHARGE, cost)
        request = StoreRequest([Charge(limit, f"{caller}", units)], operation, number + 1)
        if not request.is_refused(store.run(request)):
            admitted.setdefault(f"{caller}", []).append((clock() // 1000, units))
        clock.advance(ms=wait)
    span, bound = {"window": (60_000, 6), "day": (86_400_000, 4), "level": (10**12, 4), "permits": (30_000, 4)}[kind]
    for mine in admitted.values():
        for at, _ in mine:
            begin = at - at % span if kind == "day" else at
            assert sum(units for when, units in mine if begin <= when < begin + span) <= bound
    assert len(store) <= 4
