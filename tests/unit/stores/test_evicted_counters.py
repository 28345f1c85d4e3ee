"""Evicted counters are kept in groups; `test_memory.py` has what callers get."""

from ratelimit.algorithms.quota import QuotaState
from ratelimit.algorithms.sliding_window_state import SlidingWindowState
from ratelimit.stores.evicted_counters import MIN_GROUPS, EvictedCounters


def test_a_group_has_used_as_much_as_any_of_its_counters() -> None:
    """Until the last of them would have expired; a copy is given away."""
    evicted = EvictedCounters(1)
    for used, until in ((3, 100), (5, 50), (1, 20)):
        evicted.add("p", 7, QuotaState(0, used), until)
    first = evicted.state_for("p", 7, 99, QuotaState)
    assert first == QuotaState(0, 5)
    first.used = 9
    assert evicted.state_for("p", 7, 99, QuotaState) == QuotaState(0, 5)
    assert evicted.state_for("q", 7, 99, QuotaState) == QuotaState()
    assert evicted.state_for("p", 7, 100, QuotaState) == QuotaState()
    assert len(evicted) == 0


def test_it_is_bounded() -> None:
    """However many counters are evicted."""
    evicted = EvictedCounters(1)
    for number in range(10 * MIN_GROUPS):
        evicted.add("p", number, QuotaState(0, 1), 100)
    assert len(evicted) <= MIN_GROUPS


def test_windows_are_merged_at_the_later_instant() -> None:
    """So that no unit leaves before it would have."""
    one = SlidingWindowState(total=3, last=(50, 1, 0), older=[(10, 2, 4)])
    other = SlidingWindowState(total=1, last=(70, 1, 0), carried_overage=2, carried_stamp=5, may_carry=True)
    for merged in (one.merged(other), other.merged(one)):
        assert merged == SlidingWindowState(3, 2, 5, (70, 3, 4), [], may_carry=True)
