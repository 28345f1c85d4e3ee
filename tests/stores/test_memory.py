"""The memory store: bounded, and clean by itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from ratelimit import MemoryStore, ServiceLimit
from ratelimit.decision import Charge
from ratelimit.stores import Op, Request
from tests.support.clock import ManualClock
from tests.support.engines import quota, terms


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
    assert len(store._heap) == len(store._expiries) == 200


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
    assert len(store) == len(store._heap) == len(store._expiries) == 100
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


def test_levels_are_kept_and_push_nobody_out(clock: ManualClock) -> None:
    """What stands above zero is never forgotten, at zero it is gone, and others have all of `max_keys`."""
    store = MemoryStore(clock=clock, max_keys=2)
    level = quota(10, None)
    for n in range(5):
        decide(store, [Charge(level, f"level{n}", 3)])
    for n in range(2):
        decide(store, [Charge(terms(5), f"window{n}")])
    clock.advance(seconds=10**9)
    decide(store, [Charge(terms(5), "window")])
    assert [decide(store, [Charge(level, f"level{n}")], peek=True)[0].remaining for n in range(5)] == [7] * 5
    for n in range(5):
        store.run(Request([Charge(level, f"level{n}", -3)], Op.RELEASE))
    assert len(store) == 1
    assert len(store._heap) == 1
