"""Events say what was decided; `tests/behaviour/test_listeners.py` tests when they come."""

import pytest

from ratelimit import Decision, ServiceLimit
from ratelimit.enforcement.events import DecisionEvent


def limit_of(remaining: int, *, wait: float = 0.0, shadow: bool = False) -> ServiceLimit:
    fields = {"policy": "a", "kind": "limit", "scope": "token", "limit": 10, "window": 60, "reset_at": 0.0}
    return ServiceLimit(**fields, remaining=remaining, retry_after=wait, shadow=shadow)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "state"),
    [
        (limit_of(10), "within"),
        (limit_of(3), "within"),
        (limit_of(2), "near"),
        (limit_of(0), "near"),
        (limit_of(0, wait=1), "over"),
        (limit_of(0, wait=1, shadow=True), "shadow_over"),
    ],
)
def test_a_limit_is_near_from_four_fifths_on(limit: ServiceLimit, state: str) -> None:
    """And over where it refused, or would have."""
    event = DecisionEvent(result="admitted", decision=Decision.from_limits([limit]))
    assert event.state_of(limit) == state


def test_the_policy_of_an_event_is_that_which_refused() -> None:
    """The block has a name of its own."""
    assert DecisionEvent(result="admitted", decision=Decision.from_limits([limit_of(3)])).policy is None
    assert DecisionEvent(result="refused", decision=Decision.from_limits([limit_of(0, wait=1)])).policy == "a"
    assert DecisionEvent(result="refused", decision=Decision.blocked()).policy == "blocked"
    assert DecisionEvent(result="unavailable", decision=Decision.unavailable()).policy is None
