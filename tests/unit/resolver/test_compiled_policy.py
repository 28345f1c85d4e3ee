"""Compiled policies: which rate holds for a caller, and what a request is charged under it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Concurrency, Hours, Identity, Limit, Override, Quota, Rate
from ratelimit.config.policies import Policy
from ratelimit.model.effective_limit import EffectiveConcurrency, EffectiveQuota, EffectiveRate
from ratelimit.model.kinds import NEVER
from ratelimit.resolver.compiled_policy import MAX_EFFECTIVE_LIMITS, CompiledPolicy, dimension_values
from ratelimit.resolver.counted_periods import CountedPeriods
from ratelimit.resolver.keys import KeyBuilder
from tests.unit.resolver.settings import charges_of, policies_of, resolver_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW = round(NOON.timestamp()) * 1_000_000
ALL_DAY: dict[str, Any] = {"start": "00:00", "end": "24:00"}


def compiled(policy: Policy, overrides: Mapping[str, Override] | None = None) -> CompiledPolicy:
    return CompiledPolicy(policy, KeyBuilder(), overrides or {}, CountedPeriods(lambda: None))


@pytest.mark.parametrize("granted", [True, False])
@pytest.mark.parametrize("overridden", [True, False])
@pytest.mark.parametrize("scheduled", [True, False])
@pytest.mark.parametrize("planned", [True, False])
def test_the_precedence_is_grant_override_schedule_plan_rate(
    *, granted: bool, overridden: bool, scheduled: bool, planned: bool
) -> None:
    """Whichever of them there are, the first of this order holds."""
    sources = {"grant": granted, "override": overridden, "schedule": scheduled, "plan": planned, "rate": True}
    rates = {name: Rate(n + 1, 60) for n, name in enumerate(sources)}
    schedule = [Hours(**ALL_DAY, rate=rates["schedule"])] if scheduled else []
    plans = {"pro": rates["plan"]} if planned else {}
    policy = Limit(name="p", rate=rates["rate"], per="org", schedule=schedule, plans=plans)
    override = Override(policy="p", key={"org": "o"}, rate=rates["override"])
    caller = Identity(org="o", plan="pro", rates={"p": rates["grant"]} if granted else {})
    rate = compiled(policy, {"o": override} if overridden else {}).rate_for(caller, "o", NOW)
    assert rate == rates[next(name for name, is_there in sources.items() if is_there)]


def test_an_override_holds_for_its_counter_until_its_end() -> None:
    """Other counters and later moments have the policy's own rate."""
    override = Override(policy="p", key={"org": "o"}, rate=Rate(99, 60), until=NOON + timedelta(seconds=1))
    policy = compiled(Limit(name="p", rate="10/minute", per="org"), {"o": override})
    asked = [("o", NOW), ("other", NOW), ("o", NOW + 1_000_000)]
    assert [policy.rate_for(Identity(), counter, now) for counter, now in asked] == [
        Rate(99, 60),
        Rate(10, 60),
        Rate(10, 60),
    ]


def test_a_plan_or_a_grant_changes_the_effective_limit() -> None:
    """A plan without a limit takes the policy away, and a grant wins over every plan; burst is that of the rate."""
    policies = policies_of({"per": "org", "burst": 0.5, "plans": {"pro": "100/minute", "free": None}})

    def limit_and_burst(**who: Any) -> list[tuple[int, int]]:
        limits = [charge.limit for charge in policies.charges(Identity(org="o", **who))]
        return [(limit.limit, limit.burst) for limit in limits if isinstance(limit, EffectiveRate)]

    assert limit_and_burst() == [(10, 5)]
    assert limit_and_burst(plan="unheard-of") == [(10, 5)]
    assert limit_and_burst(plan="pro") == [(100, 50)]
    assert limit_and_burst(plan="free") == []
    assert limit_and_burst(plan="free", rates={"p0": "7/hour"}) == [(7, 3)]
    assert limit_and_burst(plan="pro", rates={"other": "7/hour"}) == [(100, 50)]


def test_costs_multiply() -> None:
    """A request of cost n takes n times the policy's own cost, and absurd products stay exact in Lua."""
    policies = policies_of({"cost": 5}, {"cost": 10**15 - 1})
    assert policies.charges(Identity(), 3)[0].cost == 15
    assert policies.charges(Identity(), 10**9)[1].cost == NEVER


@given(limit=st.integers(1, 10**6), percent=st.integers(0, 100))
def test_the_burst_is_the_floor_of_the_written_share(limit: int, percent: int) -> None:
    """A burst of 0.29 of 100 is 29, although the product of the floats is less."""
    resolver = resolver_of({"rate": f"{limit}/minute", "burst": float(f"{percent / 100:.2f}")})
    (charge,) = charges_of(resolver, Identity())
    assert isinstance(charge.limit, EffectiveRate)
    assert charge.limit.burst == limit * percent // 100


def test_effective_limits_have_a_bound() -> None:
    """Ten thousand different grants leave a bounded number of effective limits."""
    policies = policies_of({"per": "org"})
    for n in range(1, 10_000):
        policies.charges(Identity(org="o", rates={"p0": f"{n}/minute"}))
    assert 0 < policies.compiled[0].effective_limit_count <= MAX_EFFECTIVE_LIMITS == 4096


def test_callers_of_one_rate_share_one_effective_limit() -> None:
    """A batch sends the numbers of each effective limit once, so equal ones have to be identical."""
    policies = policies_of({"per": "org", "plans": {"pro": "10/minute"}})
    limits = {
        id(charge.limit)
        for who in ({"org": "a"}, {"org": "b"}, {"org": "c", "plan": "pro"}, {"org": "d", "rates": {"p0": 10}})
        for charge in policies.charges(Identity(**who))
    }
    assert len(limits) == 1


def test_a_priority_selects_a_share_of_the_limit() -> None:
    """The share caps this caller alone, and is rounded down."""
    policies = policies_of({"rate": "10/minute", "shares": {"backfill": 0.55}})
    limits = [policies.charges(Identity(priority=priority))[0].limit for priority in (None, "backfill", "other")]
    assert [limit.caller_capacity for limit in limits] == [10, 5, 10]


@pytest.mark.parametrize(
    ("policy", "kind", "period"),
    [
        (Limit(name="p", rate="5/hour"), EffectiveRate, "3600"),
        (Quota(name="p", limit=5, period="month"), EffectiveQuota, "month"),
        (Quota(name="p", limit=5), EffectiveQuota, "level"),
        (Concurrency(name="p", limit=5), EffectiveConcurrency, "slots"),
    ],
)
def test_each_kind_of_policy_has_its_effective_limit_and_key(policy: Policy, kind: type, period: str) -> None:
    """The key names the period, so that a policy whose period changes starts new counters."""
    charge = compiled(policy).charge(Identity(), 1, {}, NOW, {})
    assert charge is not None
    assert (type(charge.limit), charge.key) == (kind, f"rl:{{*}}:p:{period}:*")


@pytest.mark.parametrize(
    ("policy", "given", "coerced"),
    [
        (Limit(name="p", rate="5/hour"), 7, Rate(7, 3600)),
        (Limit(name="p", rate="5/hour"), Rate(7, 1), Rate(7, 1)),
        (Quota(name="p", limit=5), 7, 7),
        (Concurrency(name="p", limit=5), Rate(7, 60), 7),
    ],
)
def test_a_granted_number_is_a_rate_in_the_policys_period(policy: Policy, given: Any, coerced: Any) -> None:
    """For quotas and concurrency, a rate is its number."""
    assert compiled(policy).coerce_rate(given) == coerced


def test_unknown_dimensions_are_empty() -> None:
    """A token is hashed, other values are escaped, and an empty text is unknown like `None`."""
    keys = KeyBuilder()
    identity = Identity(token="t", org="", ip="::1", dimensions={"team": "a b"})
    values = dimension_values(identity, ["token", "org", "plan", "ip", "team", "region"], keys)
    assert values == {
        "token": keys.hashed("t"),
        "org": "",
        "plan": "",
        "ip": "%3A%3A1",
        "team": "a%20b",
        "region": "",
    }
