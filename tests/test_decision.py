"""Decisions: a fold over service limits."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Decision, ServiceLimit
from ratelimit.charge import NEVER, Charge, Terms
from ratelimit.decision import service_limits


def one(policy: str, remaining: int = 5, wait: float = 0.0, **more: Any) -> ServiceLimit:
    fields = {"kind": "limit", "scope": "token", "limit": 10, "window": 60, "reset_at": 0.0, **more}
    return ServiceLimit(policy=policy, remaining=remaining, retry_after=wait, **fields)


def test_allowed_binds_the_limit_with_the_fewest_requests_left() -> None:
    """`remaining // cost` decides, ties go to the one declared first, shadows and quotas do not speak."""
    first, second = one("first", 6), one("second", 6)
    expensive, shadow, quota = (
        one("expensive", 9, cost=2),
        one("shadow", 0, shadow=True),
        one("q", 0, kind="quota", status=403),
    )
    assert Decision.of([first, second, shadow, quota]).binding is first
    assert Decision.of([first, expensive]).binding is expensive
    assert Decision.of([quota]).binding is None


def test_on_a_tie_the_exhausted_limit_speaks() -> None:
    """With nothing remaining at two, the one without burst left says when the next request is served."""
    bursting, spent = one("bursting", 0), one("spent", 0, exhausted=True)
    assert Decision.of([bursting, spent]).binding is spent
    assert Decision.of([spent, bursting]).binding is spent


def test_refused_binds_the_longest_wait() -> None:
    """The violated limit with the longest wait speaks; shadows never refuse."""
    short, long, shadow = one("short", 0, 1.5), one("long", 0, 9.25), one("shadow", 0, 60, shadow=True)
    decision = Decision.of([one("free"), short, long, shadow])
    assert (decision.allowed, decision.status, decision.retry_after) == (False, 429, 9.25)
    assert (decision.violated, decision.binding) == ((short, long), long)
    assert Decision.of([shadow]).allowed


charged = st.tuples(
    st.sampled_from([("limit", 429), ("quota", 403), ("quota", 429), ("concurrency", 429)]),
    st.sampled_from(["token", "org", "global"]),
    st.booleans(),
    st.integers(1, 3),
    st.tuples(st.integers(0, 9), st.integers(0, 9000), st.sampled_from([-5000, -1, 0, 0, 0, 1, 5000, NEVER])),
)


@given(told=st.lists(charged, max_size=5))
def test_what_a_store_told_is_folded_as_its_limits_are(told: list[Any]) -> None:
    """Whether the limits are rendered at once or when they are asked for: the same decision, the same to bind."""
    charges = [
        Charge(
            Terms(kind=kind, policy=f"p{n}", scope=scope, limit=9, window=60, shadow=shadow, status=status), "k", cost
        )
        for n, ((kind, status), scope, shadow, cost, _) in enumerate(told)
    ]
    numbers = [each[-1] for each in told]
    decision, folded = Decision.told(charges, numbers, 10**15), Decision.of(service_limits(charges, numbers, 10**15))
    assert decision.binding == folded.binding
    assert decision == folded
    assert hash(decision) == hash(folded)
    assert repr(decision) == repr(folded)
    assert list(decision.refused_in_shadow) == [limit for limit in folded.limits if limit.shadow and limit.retry_after]


def test_a_quota_is_a_403_and_waits_for_ever_stay_so() -> None:
    """The kind of what speaks gives the status."""
    assert Decision.of([one("q", 0, 5, kind="quota", status=403)]).status == 403
    assert Decision.of([one("c", 0, math.inf), one("d", 0, 3)]).retry_after == math.inf


def test_no_limits_is_yes() -> None:
    """Nothing that applies is allowed, with nothing to say."""
    assert Decision.of([]) == Decision(allowed=True)


@pytest.mark.parametrize(
    ("limit", "allowance", "period", "slot", "span"),
    [
        (64, 0, 60, 1, 60_000),
        (60, 4, 60, 1, 60_000),
        (60, 5, 60, 938, 60_032),
        (65, 0, 1, 16, 1008),
        (1000, 0, 3600, 56_250, 3_600_000),
    ],
)
def test_slots_are_cut_as_the_design_says(limit: int, allowance: int, period: int, slot: int, span: int) -> None:
    """1 ms where L + C ≤ 64, else a 64th of the window, rounded up; and as many as cover the window."""
    terms = Terms(kind="limit", policy="p", scope="token", limit=limit, window=period, allowance=allowance)
    assert (terms.slot, terms.span) == (slot, span)


def test_capacity_speaks_only_where_it_is_alone() -> None:
    """The numbers of the whole service are not told to who has limits of his own."""
    own, capacity = one("own", 500), one("capacity", 3, scope="global")
    assert Decision.of([own, capacity]).binding is own
    assert Decision.of([capacity]).binding is capacity
    assert Decision.of([own, one("capacity", 0, 5, scope="global")]).status == 429
