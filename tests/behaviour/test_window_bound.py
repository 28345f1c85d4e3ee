"""The promise: any k consecutive windows admit at most k·L + C, and a caller that stays within L is never refused."""

from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.testing.clock import START
from tests.support.stores import SyncStore, admitted, fresh_key, window_limit

limits = st.one_of(st.integers(1, 64), st.integers(65, 1000))
bursts = st.sampled_from([0, 0.1, 0.25, 0.5])
periods = st.sampled_from([1, 60, 3600])


@st.composite
def any_limit(draw: st.DrawFn) -> EffectiveRate:
    """Draw an effective limit."""
    limit = draw(limits)
    return window_limit(limit, draw(periods), int(limit * draw(bursts)))


def waits(one: EffectiveRate) -> st.SearchStrategy[int]:
    """Draw milliseconds that an adversary would wait: around every edge of the algorithm."""
    window, whole = one.window * 1000, one.window_ms + one.bucket_ms
    edges = [0, 1, one.bucket_ms, window, one.window_ms, whole, 2 * whole]
    near = [edge + d for edge in edges for d in (-1, 0, 1) if edge + d >= 0]
    return st.one_of(st.sampled_from(near), st.integers(0, window // 2), st.just(0))


@st.composite
def histories(draw: st.DrawFn) -> tuple[EffectiveRate, list[tuple[int, int]]]:
    """Draw an effective limit, and the (wait in ms, cost) of each request."""
    one = draw(any_limit())
    costs = st.one_of(st.integers(1, one.capacity), st.just(1), st.just(one.limit), st.just(one.capacity))
    return one, draw(st.lists(st.tuples(waits(one), costs), min_size=5, max_size=60))


def most_in_windows(spent: list[tuple[int, int]], length: int) -> int:
    """Return the highest sum of costs in any span of `length` ms; the worst span begins at one of the charges."""
    times = [at for at, _ in spent]
    totals = [0, *accumulate(cost for _, cost in spent)]
    return max((totals[bisect_left(times, at + length)] - totals[i] for i, at in enumerate(times)), default=0)


def replay(sync_store: SyncStore, one: EffectiveRate, history: list[tuple[int, int]]) -> list[tuple[int, int, bool]]:
    """Return (ms, cost, admitted) of each request."""
    key, outcomes = fresh_key(), []
    for wait, cost in history:
        sync_store.clock.advance(ms=wait)
        is_admitted = admitted(sync_store.charge([Charge(one, key, cost)]))
        outcomes.append((sync_store.clock() // 1000, cost, is_admitted))
    return outcomes


@settings(max_examples=150)
@given(case=histories())
def test_k_windows_admit_at_most_k_times_the_limit_and_one_burst(
    sync_store: SyncStore, case: tuple[EffectiveRate, list[tuple[int, int]]]
) -> None:
    """Whatever the pattern of arrivals, any k consecutive windows hold at most k·L + C."""
    one, history = case
    spent = [(at, cost) for at, cost, ok in replay(sync_store, one, history) if ok]
    for k in range(1, 6):
        assert most_in_windows(spent, k * one.window * 1000) <= k * one.limit + one.burst


@settings(max_examples=150)
@given(case=histories(), data=st.data())
def test_the_bound_holds_for_settled_costs(
    sync_store: SyncStore, case: tuple[EffectiveRate, list[tuple[int, int]]], data: st.DataObject
) -> None:
    """If charges are settled to less than was reserved, no k windows hold more than k·L + C of the settled costs."""
    sync_store.clock.now = START  # The draws depend on what was admitted, and that on where buckets begin.
    one, history = case
    key, spent = fresh_key(), list[tuple[int, int]]()
    for wait, cost in history:
        sync_store.clock.advance(ms=wait)
        if admitted(sync_store.charge([Charge(one, key, cost)])):
            spent.append((sync_store.clock() // 1000, cost))
        number = data.draw(st.integers(0, 2 * len(spent)))
        if number < len(spent):
            at, before = spent[number]
            spent[number] = at, data.draw(st.integers(0, before))
            sync_store.run(StoreRequest([Charge(one, key, spent[number][1] - before)], Operation.ADJUST, 0, at))
    for k in range(1, 6):
        assert most_in_windows(spent, k * one.window * 1000) <= k * one.limit + one.burst


@settings(max_examples=150)
@given(case=histories())
def test_a_caller_within_the_limit_is_never_refused(
    sync_store: SyncStore, case: tuple[EffectiveRate, list[tuple[int, int]]]
) -> None:
    """A refusal means that more than L − cost was admitted in the last window and two buckets before it."""
    one, history = case
    outcomes = replay(sync_store, one, history)
    for i, (at, cost, ok) in enumerate(outcomes):
        if not ok and cost <= one.limit:
            since = at - (one.window * 1000 + 2 * one.bucket_ms)
            assert sum(c for t, c, admitted_ in outcomes[:i] if admitted_ and t > since) > one.limit - cost


@pytest.mark.parametrize(("burst", "most"), [(0, 600), (150, 750)])
def test_filling_a_limit_at_once_and_retrying_never_doubles_it(sync_store: SyncStore, burst: int, most: int) -> None:
    """A caller that uses 600/minute at once and retries every 50 ms gets at most 600 (with burst 750) in any 60 s."""
    one, key = window_limit(600, 60, burst), fresh_key()
    spent = list[tuple[int, int]]()
    for _ in range(3 * 60 * 20):
        sync_store.clock.advance(ms=50)
        cost = 750 - 600 if not spent else 50
        while admitted(sync_store.charge([Charge(one, key, cost)])):
            spent.append((sync_store.clock() // 1000, cost))
    assert most_in_windows(spent, 60_000) == most
    assert most_in_windows(spent, 120_000) <= 1200 + burst
