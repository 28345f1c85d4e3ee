"""The sliding window (`algorithms.sliding_window` and `algorithms.sliding_window_state`): what it admits, and what it says of it.

`tests/behaviour/test_window_bound.py` holds the bound over any history, `test_lua_python_parity.py` the Lua twin.
"""

from dataclasses import replace

import pytest

from ratelimit.algorithms.sliding_window import SlidingWindowView
from ratelimit.algorithms.sliding_window_state import SlidingWindowState
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.model.kinds import NEVER
from ratelimit.testing.factories import window_limit

NOW = 1_700_000_000_000


class Window:
    """A state under one limit, and the instant in milliseconds from which it is viewed."""

    def __init__(self, limit: EffectiveRate) -> None:
        self.limit, self.now = limit, NOW
        self.state = SlidingWindowState()

    @property
    def view(self) -> SlidingWindowView:
        return SlidingWindowView(self.state, self.limit, self.now)

    def charge(self, cost: int) -> bool:
        """Charge `cost` units if there is room."""
        view = self.view
        if view.available < cost:
            return False
        view.charge(cost)
        return True


def test_a_unit_is_free_again_a_window_after_it_was_charged() -> None:
    """Not one millisecond earlier: a window of small numbers has buckets of 1 ms."""
    window = Window(window_limit(2, 60))
    assert [window.charge(1), window.charge(1), window.charge(1)] == [True, True, False]
    assert window.view.status(1) == (0, 60_001, 60_001)
    window.now += 60_000
    assert not window.charge(1)
    window.now += 1
    assert window.charge(1)


def test_a_bucket_counts_in_full_until_it_lies_a_window_back() -> None:
    """Units leave with the bucket that they were charged in, all at once and never too early."""
    window = Window(window_limit(6400, 64))
    assert window.limit.bucket_ms == 1000
    window.charge(10)
    window.now += 400
    window.charge(5)
    assert window.state.last == (NOW // 1000 * 1000 + 999, 15, 0)
    window.now = NOW // 1000 * 1000 + 999 + 64_000
    assert window.view.total == 15
    window.now += 1
    assert window.view.total == 0


def test_the_burst_that_was_used_is_deducted_from_the_next_window() -> None:
    """After limit and burst were used, a window admits the limit alone; one that uses less brings the burst back."""
    window = Window(window_limit(10, 1, 5))
    assert window.view.available == 15
    window.charge(15)
    window.now += 1001
    assert window.view.available == 10
    window.charge(10)
    window.now += 1001
    assert window.view.available == 10
    window.charge(5)
    window.now += 1001
    assert window.view.available == 15


def test_a_caller_with_a_share_may_fill_the_window_so_far_alone() -> None:
    """The window is common to all callers, and each has its own bound on the total."""
    window = Window(window_limit(10, 60, share=4))
    assert [window.charge(3), window.charge(2), window.charge(1)] == [True, False, True]
    window.limit = window_limit(10, 60)
    assert window.view.available == 6


def test_a_cost_above_the_capacity_never_fits() -> None:
    """The wait says so, instead of naming a time."""
    window = Window(window_limit(10, 60, 5))
    assert window.view.status(15) == (10, 0, 0)
    assert window.view.status(16) == (10, 0, NEVER)


def test_a_correction_is_made_in_the_bucket_of_the_charge() -> None:
    """It leaves with the charge that it corrects; one of a charge that has left is void, or counted now if positive."""
    window = Window(window_limit(100, 1))
    window.charge(10)
    window.now += 500
    window.charge(1)
    window.view.adjust(20, NOW)
    assert window.view.total == 31
    window.now = NOW + window.limit.window_ms + window.limit.bucket_ms
    assert window.view.total == 1
    window.view.adjust(-30, NOW)
    assert window.view.total == 1
    window.view.adjust(30, NOW)
    assert window.view.total == 31


def test_a_release_takes_the_newest_units_first() -> None:
    """The units that stay are those that leave the window first."""
    window = Window(window_limit(10, 1))
    window.charge(3)
    window.now += 500
    window.charge(3)
    assert window.view.releasable == 6
    window.view.release(4)
    assert window.view.usage() == (2, 1001, 0)
    window.now = NOW + 1001
    assert window.view.total == 0


@pytest.mark.parametrize("cost", [1, 3])
def test_the_fast_path_admits_what_the_view_admits(cost: int) -> None:
    """`charge_usual` gives the same state and reading as a view, can be taken back, and does nothing where anything is special."""
    fast, slow = Window(window_limit(100, 60, 20)), Window(window_limit(100, 60, 20))
    assert fast.state.charge_usual(fast.limit, NOW, cost) is None
    for window in (fast, slow):
        window.charge(cost)
    for later in (0, 1, 937, 938, 5000, 59_000, 61_000, 61_000, 119_000):
        state = fast.state
        before, kept = replace(state, older=[*state.older]), (state.last, state.total, state.carried_stamp)
        slow.now = NOW + later
        view = slow.view
        view.charge(cost)
        assert state.charge_usual(fast.limit, NOW + later, cost) == view.status_after_charge()
        assert state == slow.state
        state.take_back(kept)
        assert state == before
        assert state.charge_usual(fast.limit, NOW + later, 100) is None
        assert state == before
        state.charge_usual(fast.limit, NOW + later, cost)
    assert fast.state.charge_usual(fast.limit, NOW + 999_000, cost) is None
    assert fast.state.charge_usual(fast.limit, NOW - 60_000, cost) is None
    fast.state.carried_overage = 1
    assert fast.state.charge_usual(fast.limit, NOW + 119_000, cost) is None


def test_a_limit_that_changes_keeps_what_was_counted() -> None:
    """Another rate, with buckets of another width, reads the same entries."""
    window = Window(window_limit(10, 1))
    window.charge(8)
    window.limit = window_limit(1000, 60)
    assert window.view.total == 8
    window.charge(100)
    window.limit = window_limit(10, 1)
    assert window.view.available == -98
