"""A store's clock that steps back (NTP, a failover, a host that booted with a wrong clock) locks no caller out."""

from collections.abc import Sequence

import pytest

from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.stores import SyncStore, concurrency_limit, fresh_key, quota_limit, window_limit

STEPS = [-1, -30, -3600, -86_400 * 365]


def admitted(store: SyncStore, limit: EffectiveLimit, key: str, times: int, cost: int = 1) -> int:
    """Charge so many times, and return how often the charge was admitted."""
    return waits(store, limit, key, times, cost).count(0)


def waits(store: SyncStore, limit: EffectiveLimit, key: str, times: int, cost: int = 1) -> list[float]:
    return [store.charge([Charge(limit, key, cost)])[0].retry_after for _ in range(times)]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("number", "burst"), [(10, 0), (10, 5), (600, 0), (600, 150)])
def test_a_full_window_is_free_again_after_a_window_and_a_bucket(
    sync_store: SyncStore, step: int, number: int, burst: int
) -> None:
    """No caller waits longer than a window and a bucket, however far the clock steps back, and the wait is right."""
    limit, key = window_limit(number, 60, burst), fresh_key()
    assert admitted(sync_store, limit, key, 1, number) == 1
    sync_store.clock.advance(seconds=step)
    (wait,) = waits(sync_store, limit, key, 1, number)
    assert 0 < wait <= 60 + 2 * 60 / 64 + 0.002
    sync_store.clock.advance(ms=round(wait * 1000))
    assert admitted(sync_store, limit, key, 1, number) == 1


@pytest.mark.parametrize("step", STEPS)
def test_callers_go_on_in_the_room_that_is_left(sync_store: SyncStore, step: int) -> None:
    """What was used still counts after a step, and what was left is still there."""
    limit, key = window_limit(50, 60), fresh_key()
    assert admitted(sync_store, limit, key, 30) == 30
    sync_store.clock.advance(seconds=step)
    assert admitted(sync_store, limit, key, 50) == 20
    sync_store.clock.advance(seconds=61)
    assert admitted(sync_store, limit, key, 60) == 50


def test_a_step_of_less_than_a_bucket_changes_nothing(sync_store: SyncStore) -> None:
    """A charge after a small step goes to the last entry."""
    limit, key = window_limit(600, 60), fresh_key()
    waits(sync_store, limit, key, 3)
    sync_store.clock.advance(ms=-400)
    (told,) = sync_store.charge([Charge(limit, key)])
    assert told.remaining == 596
    sync_store.clock.advance(ms=60_000 + 400 + 938)
    (told,) = sync_store.charge([Charge(limit, key)], peek=True)
    assert told.remaining == 600


def test_a_look_writes_nothing(sync_store: SyncStore) -> None:
    """`peek` reports the window as it would be rewritten, and leaves the stamps to the next charge."""
    limit, key = window_limit(1, 60), fresh_key()
    waits(sync_store, limit, key, 1)
    sync_store.clock.advance(seconds=-3600)
    for _ in range(2):
        (told,) = sync_store.charge([Charge(limit, key)], peek=True)
        assert told.retry_after == 60.001
        sync_store.clock.advance(seconds=10)
    sync_store.clock.advance(seconds=3580 + 61)
    assert admitted(sync_store, limit, key, 1) == 1


@pytest.mark.parametrize("step", STEPS)
def test_a_refused_request_rewrites_all_of_its_windows(sync_store: SyncStore, step: int) -> None:
    """Two limits, one of them full: both windows begin to run by the new clock."""
    full, roomy, keys = window_limit(1, 60), window_limit(10, 60), (fresh_key(), fresh_key())
    charges = [Charge(full, keys[0]), Charge(roomy, keys[1])]
    sync_store.charge(charges)
    sync_store.clock.advance(seconds=step)
    assert [limit.retry_after > 0 for limit in sync_store.charge(charges)] == [True, False]
    sync_store.clock.advance(seconds=61)
    limits: Sequence[object] = [limit.remaining for limit in sync_store.charge(charges)]
    assert limits == [0, 9]


def acquired(store: SyncStore, limit: EffectiveLimit, key: str, holder: int) -> bool:
    request = StoreRequest([Charge(limit, key)], Operation.ACQUIRE, holder)
    return not request.is_refused(store.run(request))


def test_permits_of_a_wrong_clock_expire(sync_store: SyncStore) -> None:
    """A permit whose holder died under a wrong clock is free after one lease by the right one."""
    limit, key = concurrency_limit(1, 5000), fresh_key()
    assert acquired(sync_store, limit, key, 7)
    sync_store.clock.advance(seconds=-86_400 * 365)
    assert not acquired(sync_store, limit, key, 8)
    sync_store.clock.advance(seconds=5)
    assert acquired(sync_store, limit, key, 9)


def test_a_longer_lease_is_not_shortened(sync_store: SyncStore) -> None:
    """A deployment that shortens the lease takes no permit from the workers that still have the long one."""
    key = fresh_key()
    assert acquired(sync_store, concurrency_limit(1, 600_000), key, 7)
    assert not acquired(sync_store, concurrency_limit(1, 10_000), key, 8)
    sync_store.clock.advance(seconds=11)
    assert not acquired(sync_store, concurrency_limit(1, 10_000), key, 9)


@pytest.mark.parametrize("step", STEPS)
def test_a_charge_of_before_the_step_can_be_given_back(sync_store: SyncStore, step: int) -> None:
    """A settlement or refund finds its units in the entry that was brought back."""
    limit, key = window_limit(100_000, 60), fresh_key()
    made = sync_store.run(StoreRequest([Charge(limit, key, 90_000)]))
    sync_store.clock.advance(seconds=2 * step)
    waits(sync_store, limit, key, 1)
    sync_store.clock.advance(seconds=4)
    sync_store.run(StoreRequest([Charge(limit, key, -89_900)], Operation.ADJUST, 0, made.store_ms))
    (left,) = sync_store.charge([Charge(limit, key)], peek=True)
    assert left.remaining == 100_000 - 101


def test_a_quota_of_a_wrong_clock_does_not_last_for_a_year(sync_store: SyncStore) -> None:
    """A quota that was charged in a period far ahead counts in the period that the right clock shows."""
    limit, key = quota_limit(5, "day"), fresh_key()
    assert admitted(sync_store, limit, key, 5) == 5
    sync_store.clock.advance(seconds=-86_400 * 365)
    assert admitted(sync_store, limit, key, 1) == 0
    sync_store.clock.advance(seconds=86_400)
    assert admitted(sync_store, limit, key, 5) == 5
