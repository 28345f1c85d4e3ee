"""Service limits: a store's readings as callers see them.

Also tests `model.charge` and `model.kinds`.
"""

import math
from typing import Any

import pytest

from ratelimit import ServiceLimit
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit, EffectiveQuota
from ratelimit.model.kinds import GLOBAL, NEVER
from ratelimit.model.service_limit import LEVEL_RETRY_MS, service_limit, service_limits
from ratelimit.testing.factories import concurrency_limit, pace_limit, quota_limit, window_limit

NOW = 1_700_000_000_000_000


def test_the_fast_constructor_fills_every_field_in_its_place() -> None:
    """`service_limit` makes the tuple without the class: each field has its own value, and there is one for each."""
    limit = EffectiveQuota(
        policy="the policy",
        scope="the scope",
        limit=1001,
        window=1002,
        fleet_limit=1003,
        shadow=True,
        code="the code",
        detail="the detail",
        status=418,
        unit="the unit",
        period="week",
    )
    made = service_limit(Charge(limit, "the key", 1004), 0, 1_005_000, 1_006_000, NOW)
    expected: dict[str, Any] = {
        "policy": "the policy",
        "kind": "quota",
        "scope": "the scope",
        "limit": 1003,
        "remaining": 0,
        "window": 1002,
        "reset_at": NOW / 1e6 + 1005,
        "retry_after": 1006.0,
        "shadow": True,
        "exhausted": True,
        "cost": 1004,
        "reset_after": 1005.0,
        "more_after": None,
        "code": "the code",
        "detail": "the detail",
        "status": 418,
        "unit": "the unit",
        "period": "week",
    }
    assert {name: getattr(made, name) for name in ServiceLimit._fields} == expected
    assert type(made) is ServiceLimit
    assert len(made) == len(ServiceLimit._fields)
    assert made == ServiceLimit(**expected)


@pytest.mark.parametrize(
    ("remaining", "wait_ms", "retry_after", "exhausted"),
    [
        (5, 0, 0.0, False),
        (0, 0, 0.0, False),  # Burst is left.
        (0, -1500, 0.0, True),
        (0, 1500, 1.5, True),
        (3, 1500, 1.5, False),  # The cost is larger than what is left.
        (3, NEVER, math.inf, False),
    ],
)
def test_the_sign_of_a_wait_tells_admitted_from_refused(
    remaining: int, wait_ms: int, retry_after: float, *, exhausted: bool
) -> None:
    """A positive wait is a refusal, a negative one an admitted request that left nothing."""
    made = service_limit(Charge(window_limit(9), "k"), remaining, 2000, wait_ms, NOW)
    assert (made.retry_after, made.exhausted, made.reset_after) == (retry_after, exhausted, 2.0)


def test_a_full_level_with_status_429_names_a_wait() -> None:
    """Other requests bring it down at an unknown time, so the caller may try again; a 403, or a cost above it, never."""
    patient = EffectiveQuota(policy="q", scope="org", limit=5, status=429)

    def retry_after(limit: EffectiveLimit, cost: int) -> float:
        return service_limit(Charge(limit, "k", cost), 0, 0, NEVER, NOW).retry_after

    assert retry_after(patient, 1) == LEVEL_RETRY_MS / 1000
    assert retry_after(patient, 6) == math.inf
    assert retry_after(quota_limit(5, None), 1) == math.inf


def test_a_limit_after_some_seconds_waits_less() -> None:
    """Waits and resets get shorter, and neither goes below zero; the moment of the reset stays the same."""
    made = service_limit(Charge(window_limit(9), "k"), 0, 5000, 5000, NOW)
    later = made.after(3.5)
    assert later == made._replace(retry_after=1.5, reset_after=1.5)
    assert type(later) is ServiceLimit
    admitted = service_limit(Charge(window_limit(9), "k"), 8, 5000, 0, NOW).after(60)
    assert (admitted.retry_after, admitted.reset_after) == (0.0, 0.0)


def test_only_a_global_limit_is_the_capacity_of_the_service() -> None:
    """Its numbers stay private."""
    made = service_limit(Charge(pace_limit(9), "k"), 0, 0, 0, NOW)
    assert made.scope == GLOBAL
    assert made.is_capacity
    assert not service_limit(Charge(window_limit(9), "k"), 0, 0, 0, NOW).is_capacity


def test_there_is_one_service_limit_for_each_charge() -> None:
    """In their order; a charge without a reading is a mistake of the store, and raises."""
    charges = [Charge(window_limit(9), "a"), Charge(concurrency_limit(2), "b")]
    made = service_limits(charges, [(8, 1000, 0), (0, 50, 50)], NOW)
    assert [(limit.kind, limit.remaining) for limit in made] == [("limit", 8), ("concurrency", 0)]
    with pytest.raises(ValueError, match="shorter"):
        service_limits(charges, [(8, 1000, 0)], NOW)


def test_a_charge_costs_one_unit_and_is_a_value() -> None:
    """Equal limit, key and cost make an equal charge; a limit is equal to itself alone."""
    limit = window_limit(9)
    assert Charge(limit, "k") == Charge(limit, "k", 1)
    assert Charge(limit, "k") != Charge(window_limit(9), "k")
    assert {Charge(limit, "k"): 1}[Charge(limit, "k")] == 1
