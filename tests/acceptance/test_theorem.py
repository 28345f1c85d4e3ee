"""The promise: any k consecutive windows admit at most k·L + C, and who stays within L is never refused."""

from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.charge import Charge, Terms
from ratelimit.stores import Op, Request
from ratelimit.testing.clock import START
from tests.support.engines import Engine, admitted, fresh_key, terms

limits = st.one_of(st.integers(1, 64), st.integers(65, 1000))
bursts = st.sampled_from([0, 0.1, 0.25, 0.5])
periods = st.sampled_from([1, 60, 3600])


@st.composite
def any_terms(draw: st.DrawFn) -> Terms:
    limit = draw(limits)
    return terms(limit, draw(periods), int(limit * draw(bursts)))


def steps(one: Terms) -> st.SearchStrategy[int]:
    """Milliseconds that an adversary would wait: round every edge that the algorithm has."""
    window, whole = one.window * 1000, one.span + one.slot
    edges = [0, 1, one.slot, window, one.span, whole, 2 * whole]
    near = [edge + d for edge in edges for d in (-1, 0, 1) if edge + d >= 0]
    return st.one_of(st.sampled_from(near), st.integers(0, window // 2), st.just(0))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Terms, list[tuple[int, int]]]:
    """Draw the numbers of a limit, and (wait in ms, cost) of each request."""
    one = draw(any_terms())
    ceiling = one.limit + one.allowance
    costs = st.one_of(st.integers(1, ceiling), st.just(1), st.just(one.limit), st.just(ceiling))
    return one, draw(st.lists(st.tuples(steps(one), costs), min_size=5, max_size=60))


def most_in_windows(spent: list[tuple[int, int]], length: int) -> int:
    """Return the most that any span of `length` ms holds of (ms, cost); the worst span begins at one of them."""
    times = [at for at, _ in spent]
    totals = [0, *accumulate(cost for _, cost in spent)]
    return max((totals[bisect_left(times, at + length)] - totals[i] for i, at in enumerate(times)), default=0)


def replay(engine: Engine, one: Terms, history: list[tuple[int, int]]) -> list[tuple[int, int, bool]]:
    """Return (ms, cost, admitted) of each request."""
    key, told = fresh_key(), []
    for wait, cost in history:
        engine.clock.advance(ms=wait)
        answer = admitted(engine.charge([Charge(one, key, cost)]))
        told.append((engine.clock() // 1000, cost, answer))
    return told


@settings(max_examples=150)
@given(case=histories())
def test_k_windows_admit_at_most_k_times_the_limit_and_one_burst(
    engine: Engine, case: tuple[Terms, list[tuple[int, int]]]
) -> None:
    """Whatever the pattern of arrivals, any k consecutive windows hold at most k·L + C."""
    one, history = case
    spent = [(at, cost) for at, cost, ok in replay(engine, one, history) if ok]
    for k in range(1, 6):
        assert most_in_windows(spent, k * one.window * 1000) <= k * one.limit + one.allowance


@settings(max_examples=150)
@given(case=histories(), data=st.data())
def test_the_bound_holds_for_what_was_settled(
    engine: Engine, case: tuple[Terms, list[tuple[int, int]]], data: st.DataObject
) -> None:
    """Where charges are settled to less than was reserved, no span of windows holds more than k·L + C of it."""
    engine.clock.now = START  # What is drawn depends on what was admitted, and that on where slots begin.
    one, history = case
    key, spent = fresh_key(), list[tuple[int, int]]()
    for wait, cost in history:
        engine.clock.advance(ms=wait)
        if admitted(engine.charge([Charge(one, key, cost)])):
            spent.append((engine.clock() // 1000, cost))
        number = data.draw(st.integers(0, 2 * len(spent)))
        if number < len(spent):
            at, before = spent[number]
            spent[number] = at, data.draw(st.integers(0, before))
            engine.run(Request([Charge(one, key, spent[number][1] - before)], Op.ADJUST, 0, at))
    for k in range(1, 6):
        assert most_in_windows(spent, k * one.window * 1000) <= k * one.limit + one.allowance


@settings(max_examples=150)
@given(case=histories())
def test_nobody_who_stays_within_the_limit_is_refused(
    engine: Engine, case: tuple[Terms, list[tuple[int, int]]]
) -> None:
    """A refusal means that the last window, and two slots of lateness, saw more than L − cost."""
    one, history = case
    told = replay(engine, one, history)
    for i, (at, cost, ok) in enumerate(told):
        if not ok and cost <= one.limit:
            since = at - (one.window * 1000 + 2 * one.slot)
            assert sum(c for t, c, admitted_ in told[:i] if admitted_ and t > since) > one.limit - cost


@pytest.mark.parametrize(("burst", "most"), [(0, 600), (150, 750)])
def test_filling_a_limit_at_once_and_retrying_never_doubles_it(engine: Engine, burst: int, most: int) -> None:
    """600/minute, spent at once and asked for again every 50 ms for three windows: never above 600 (750) in 60 s."""
    one, key = terms(600, 60, burst), fresh_key()
    spent = list[tuple[int, int]]()
    for _ in range(3 * 60 * 20):
        engine.clock.advance(ms=50)
        cost = 750 - 600 if not spent else 50
        while admitted(engine.charge([Charge(one, key, cost)])):
            spent.append((engine.clock() // 1000, cost))
    assert most_in_windows(spent, 60_000) == most
    assert most_in_windows(spent, 120_000) <= 1200 + burst
