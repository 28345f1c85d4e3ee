"""The policies of an endpoint, and the charges of its callers."""

from typing import Any

import pytest

from ratelimit import Identity, Override, Rate
from ratelimit.resolver.resolver import MAX_CACHED_CHARGES
from tests.unit.resolver.settings import applied, charges_of, policies_of, resolver_of


def test_a_policy_needs_all_of_its_dimensions() -> None:
    """A limit by a dimension that the identity lacks does not apply to it."""
    resolver = resolver_of({"per": ["token"]}, {"per": ["token", "org"]}, {"per": ["team"]}, {}, dimensions=["team"])
    assert applied(resolver, Identity(token="t")) == ["p0", "p3"]
    assert applied(resolver, Identity(token="t", org="")) == ["p0", "p3"]
    assert applied(resolver, Identity(token="t", org="o", dimensions={"team": "x"})) == ["p0", "p1", "p2", "p3"]


def test_endpoint_and_method_are_dimensions() -> None:
    """`endpoint` counts each method of a template apart, `method` each method over all templates."""
    resolver = resolver_of({"per": "endpoint"}, {"per": "method"})

    def keys(method: str, path: str) -> list[str]:
        return [charge.key for charge in charges_of(resolver, Identity(), method, path)]

    get_x, post_x, get_y = keys("GET", "/x"), keys("POST", "/x"), keys("GET", "/y")
    assert len({get_x[0], post_x[0], get_y[0]}) == 3
    assert get_x[1] == get_y[1] != post_x[1]
    assert keys("HEAD", "/x") == get_x


def test_policies_that_an_outer_limiter_has_charged_are_left_out() -> None:
    """Nested limiters charge each policy once."""
    policies = policies_of({}, {})
    charges = policies.charges(Identity(), already_charged=policies.policies[:1])
    assert [charge.limit.policy for charge in charges] == ["p1"]


def test_a_cost_that_a_function_told_is_that_of_its_policy_alone() -> None:
    """The other policies charge their own cost."""
    policies = policies_of({"cost": lambda request: 0}, {"cost": 2})
    assert [policy.name for policy in policies.dynamic_cost_policies] == ["p0"]
    charges = policies.charges(Identity(), dynamic_costs={"p0": 7})
    assert [charge.cost for charge in charges] == [7, 2]


@pytest.mark.parametrize(
    ("settings", "has_concurrency", "needs_settlement"),
    [
        ({}, False, False),
        ({"quotas": [{"name": "q", "limit": 1, "refund_on": 500}]}, False, True),
        ({"concurrency": [{"name": "c", "limit": 1}]}, True, True),
    ],
)
def test_what_has_to_be_given_back_is_known_before_the_request(
    settings: dict[str, Any], *, has_concurrency: bool, needs_settlement: bool
) -> None:
    """Permits are released at the end, and some charges refunded; other requests need no settlement."""
    policies = policies_of({}, **settings)
    assert (policies.has_concurrency, policies.needs_settlement) == (has_concurrency, needs_settlement)


def test_the_charges_of_a_caller_are_cached_until_overrides_change() -> None:
    """The same caller gets the same charges without computing them, and never those of another caller."""
    resolver = resolver_of({"per": "org"})
    policies = resolver.policies_at(resolver.endpoint("GET", "/x"))
    first = policies.charges(Identity(org="o"))
    assert policies.charges(Identity(org="o")) is first
    assert policies.charges(Identity(org="o", plan="pro")) is not first
    resolver.set_overrides({"p0": {"o": Override(policy="p0", key={"org": "o"}, rate=Rate(99, 60))}})
    assert [charge.limit.limit for charge in policies.charges(Identity(org="o"))] == [99]


def test_callers_with_long_names_are_not_cached() -> None:
    """Callers choose names, but not how much memory they take."""
    resolver = resolver_of({"per": "org"})
    policies = resolver.policies_at(resolver.endpoint("GET", "/x"))
    policies.charges(Identity(org="o" * 1000))
    policies.charges(Identity(org="o", dimensions={"team": "x" * 1000}))
    assert resolver.charge_cache == {}
    for n in range(2 * MAX_CACHED_CHARGES):
        policies.charges(Identity(org=f"o{n}"))
    assert 0 < len(resolver.charge_cache) <= MAX_CACHED_CHARGES


def test_charges_that_depend_on_the_time_are_not_cached() -> None:
    """A schedule holds by the minute, and an override with an end until then."""
    hours = {"start": "00:00", "end": "12:00", "rate": "99/minute"}
    resolver = resolver_of({"schedule": [hours]})
    morning, evening = 1_700_006_400_000_000, 1_700_049_600_000_000  # 00:00 and 12:00 UTC
    assert [charges_of(resolver, Identity(), now=now)[0].limit.limit for now in (morning, evening)] == [99, 10]
    assert resolver.charge_cache == {}
