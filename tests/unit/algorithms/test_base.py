"""The contract of an algorithm: every view and state has all of its parts."""

from typing import Any

import pytest

from ratelimit.algorithms.base import LimitState, StateView
from ratelimit.algorithms.concurrency import ConcurrencyState, ConcurrencyView
from ratelimit.algorithms.pace import PaceState, PaceView
from ratelimit.algorithms.quota import QuotaState, QuotaView
from ratelimit.algorithms.sliding_window import SlidingWindowView
from ratelimit.algorithms.sliding_window_state import SlidingWindowState
from ratelimit.testing.factories import concurrency_limit, pace_limit, quota_limit, window_limit

NOW = 1_700_000_000_000
KINDS: list[tuple[Any, Any, Any]] = [
    (SlidingWindowState, SlidingWindowView, window_limit(5)),
    (QuotaState, QuotaView, quota_limit(5, "day")),
    (ConcurrencyState, ConcurrencyView, concurrency_limit(5)),
    (PaceState, PaceView, pace_limit(5)),
]


def parts(protocol: type) -> set[str]:
    names = set(vars(protocol)) | set(protocol.__annotations__)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(("state", "view", "limit"), KINDS)
def test_every_algorithm_has_all_parts_of_the_contract(state: Any, view: Any, limit: Any) -> None:
    """What `StateView` and `LimitState` name is there, in each of the four."""
    empty = state()
    assert {name for name in parts(LimitState) if not hasattr(empty, name)} == set()
    assert {name for name in parts(StateView) if not hasattr(view(empty, limit, NOW), name)} == set()


@pytest.mark.parametrize(("state", "view", "limit"), KINDS)
def test_making_a_view_and_reading_it_changes_nothing(state: Any, view: Any, limit: Any) -> None:
    """A state that was charged is equal before and after it is viewed at a later instant."""
    one, other = state(), state()
    for each in (one, other):
        view(each, limit, NOW).charge(1, 7)
    for later in (0, 1, 60_000, 10**10):
        seen = view(one, limit, NOW + later)
        seen.status(1)
        seen.usage()
        seen.status_after_charge()
    assert one == other


@pytest.mark.parametrize(("state", "view", "limit"), KINDS)
def test_an_expired_state_means_the_same_as_none(state: Any, view: Any, limit: Any) -> None:
    """From the instant of `expires` on, the readings are those of an empty state."""
    charged = state()
    view(charged, limit, NOW).charge(1, 7)
    then = charged.expires(limit)
    assert then > NOW
    assert view(charged, limit, then).status(1) == view(state(), limit, then).status(1)
