"""Top callers: the frequent ones are known in a bounded memory, and none is counted too low."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.enforcement.top_callers import SpaceSaving, TopCallers
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=600), st.integers(1, 20))
def test_counts_are_never_too_low_and_the_error_is_bounded(events: list[tuple[int, int]], capacity: int) -> None:
    """By the total over the capacity, for any order; and so is the memory."""
    counts, true = SpaceSaving(capacity), Counter[str]()
    for each, number in events:
        counts[str(each)] += number
        true[str(each)] += number
        assert len(counts) <= 2 * capacity + 1
    bound = sum(true.values()) / capacity
    for name, number in counts.items():
        assert true[name] <= number <= true[name] + bound
    for name, number in true.items():
        assert name in counts or number <= bound
    assert len(counts.most_common()) <= capacity


def test_frequent_callers_stand_out_among_many() -> None:
    """Ten of them, among 100,000 that come once."""
    counts = SpaceSaving()
    for number in range(100_000):
        counts[f"once-{number}"] += 1
        counts[f"often-{number % 10}"] += 1
    assert set(list(counts.most_common())[:10]) == {f"often-{number}" for number in range(10)}


def test_requests_are_counted_by_their_charges() -> None:
    """Units of each policy, since the last time."""
    limit = EffectiveRate(policy="a", scope="token", limit=9, window=60)
    callers, charges = TopCallers(), [Charge(limit, "k1", 2), Charge(limit, "k2", 1)]
    for _ in range(3):
        callers.seen.append(charges)
    callers.seen.append([Charge(limit, "k1", 5)])
    callers.add("refused", "a", "k3")
    assert callers.take() == {("refused", "a"): {"k3": 1}, ("used", "a"): {"k1": 11, "k2": 3}}
    assert callers.take() == {}
