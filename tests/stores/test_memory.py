"""The memory store: bounded, and clean by itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from ratelimit import MemoryStore, ServiceLimit
from ratelimit.charge import Charge, Terms
from ratelimit.stores import Op, Request
from ratelimit.testing import ManualClock
from tests.support.engines import quota, slots, terms


def decide(store: MemoryStore, charges: list[Charge], *, peek: bool = False) -> list[ServiceLimit]:
    return store.run(Request(charges, Op.PEEK if peek else Op.CHARGE)).limits(charges)


def test_expired_keys_are_dropped_as_others_are_charged(clock: ManualClock) -> None:
    """Nothing scans: each call lets a few go, and in time all."""
    store = MemoryStore(clock=clock)
    for n in range(1000):
        decide(store, [Charge(terms(5, 1), f"old{n}")])
    assert len(store) == 1000
    clock.advance(seconds=10)
    for n in range(200):
        decide(store, [Charge(terms(5, 60), f"new{n}")])
    assert len(store) == 200
    assert len(store._expiries) == len(store._expiries._due) == 200


def test_a_key_that_is_used_lives_on(clock: ManualClock) -> None:
    """Expiry follows the last charge, not the first."""
    store, one = MemoryStore(clock=clock), terms(100, 1)
    for _ in range(50):
        clock.advance(ms=100)
        decide(store, [Charge(one, "busy")])
    assert len(store) == 1
    assert decide(store, [Charge(one, "busy")], peek=True)[0].remaining == 100 - 11


def test_the_number_of_keys_is_bounded(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond `max_keys`, what expires first is forgotten, with one line in the log."""
    store = MemoryStore(clock=clock, max_keys=100)
    for n in range(1000):
        clock.advance(ms=1)
        decide(store, [Charge(terms(5), f"k{n}")])
    assert len(store) == len(store._expiries) == len(store._expiries) == 100
    assert decide(store, [Charge(terms(5), "k999")], peek=True)[0].remaining == 4
    assert decide(store, [Charge(terms(5), "k0")], peek=True)[0].remaining == 5
    assert len(caplog.messages) == 1


def test_what_is_used_is_not_what_is_forgotten(clock: ManualClock) -> None:
    """The key that expires first goes, by its last charge."""
    store, one = MemoryStore(clock=clock, max_keys=2), terms(100)
    decide(store, [Charge(one, "used")])
    clock.advance(seconds=20)
    decide(store, [Charge(one, "idle")])
    clock.advance(seconds=20)
    decide(store, [Charge(one, "used")])
    decide(store, [Charge(one, "new")])
    left = [decide(store, [Charge(one, key)], peek=True)[0].remaining for key in ("used", "idle", "new")]
    assert left == [98, 100, 99]


def test_a_burst_that_is_granted_in_mid_window_is_remembered(clock: ManualClock) -> None:
    """A key lives long enough for the excess that a larger allowance lets it carry."""
    store, key = MemoryStore(clock=clock), "k"
    decide(store, [Charge(terms(100), key)])
    decide(store, [Charge(terms(100, 60, 50), key, 149)])
    clock.advance(seconds=70)
    decide(store, [Charge(terms(5), "other")])
    assert decide(store, [Charge(terms(100, 60, 50), key, 101)], peek=True)[0].retry_after > 0
    assert len(store) == 2


def test_threads_share_one_count(clock: ManualClock) -> None:
    """Several threads with loops of their own admit together what one would."""
    store, one = MemoryStore(clock=clock), terms(3000)

    def spend() -> int:
        return sum(decide(store, [Charge(one, "k")])[0].retry_after == 0 for _ in range(2000))

    with ThreadPoolExecutor(4) as pool:
        admitted = sum(future.result() for future in [pool.submit(spend) for _ in range(4)])
    assert admitted == 3000


def test_refusals_and_looks_make_no_keys(clock: ManualClock) -> None:
    """Only what is admitted is kept."""
    store = MemoryStore(clock=clock)
    decide(store, [Charge(terms(5), "a")], peek=True)
    decide(store, [Charge(terms(5), "b", 6)])
    assert len(store) == 0
    assert repr(store) == "<MemoryStore keys=0>"


def test_levels_and_slots_that_are_empty_are_gone(clock: ManualClock) -> None:
    """Levels never expire while something stands in them; what is empty means the same as nothing."""
    store, level, runs = MemoryStore(clock=clock), quota(10, None), slots(2)
    for n in range(5):
        decide(store, [Charge(level, f"level{n}", 3)])
        store.run(Request([Charge(runs, f"runs{n}")], Op.HOLD, n + 1))
        store.run(Request([Charge(runs, f"runs{n}", -1)], Op.ADJUST, n + 1))
    assert len(store) == 5
    clock.advance(seconds=10**9)
    assert [decide(store, [Charge(level, f"level{n}")], peek=True)[0].remaining for n in range(5)] == [7] * 5
    for n in range(5):
        store.run(Request([Charge(level, f"level{n}", -3)], Op.RELEASE))
    assert (len(store), len(store._expiries)) == (0, 0)


def test_slots_that_come_and_go_leave_no_trail(clock: ManualClock) -> None:
    """A key that is taken and given back ten thousand times is noted once."""
    store, runs = MemoryStore(clock=clock), slots(2)
    for n in range(10_000):
        clock.advance(ms=1)
        store.run(Request([Charge(runs, "runs")], Op.HOLD, n + 1))
        store.run(Request([Charge(runs, "runs", -1)], Op.ADJUST, n + 1))
    assert (len(store), len(store._expiries)) == (0, 1)


@pytest.mark.parametrize("crowd", [quota(5, "month"), quota(5, None), slots(5, 90_000), terms(5, 60, policy="c")])
def test_a_crowd_pushes_out_its_own_kind(clock: ManualClock, crowd: Terms) -> None:
    """However many keys of one policy there are, those of another stay."""
    store, window = MemoryStore(clock=clock, max_keys=50), terms(1)
    for n in range(10):
        decide(store, [Charge(window, f"window{n}")])
    for n in range(500):
        store.run(Request([Charge(crowd, f"crowd{n}")], Op.HOLD, n + 1))
        clock.advance(ms=1)
    assert len(store) == 50
    assert not any(decide(store, [Charge(window, f"window{n}")], peek=True)[0].remaining for n in range(10))
    left = decide(store, [Charge(crowd, "crowd499"), Charge(crowd, "crowd0")], peek=True)
    assert [one.remaining for one in left] == [4, 5]


def test_of_levels_the_one_longest_unused_is_forgotten(clock: ManualClock) -> None:
    """The busiest is not, however early it was made."""
    store, level = MemoryStore(clock=clock, max_keys=3), quota(100, None)
    for n in range(10):
        decide(store, [Charge(level, "busy")])
        decide(store, [Charge(level, f"level{n}")])
    assert decide(store, [Charge(level, "busy")], peek=True)[0].remaining == 90
