"""The plan: from an identity and an endpoint to charges, without a store."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Identity, Limiter, MemoryStore, RateLimitSettings, limit
from ratelimit.charge import NEVER
from ratelimit.decorators import Declared, declared_on
from ratelimit.plan import Plan
from ratelimit.testing import ManualClock


def plan_of(*limits: dict[str, Any], **settings: Any) -> Plan:
    named = [{"name": f"p{i}", "rate": "10/minute", **one} for i, one in enumerate(limits)]
    return Plan(RateLimitSettings.model_validate({"limits": named, **settings}))


def applied(plan: Plan, identity: Identity, method: str = "GET", path: str = "/x") -> list[str]:
    return [charge.terms.policy for charge in plan.rules(plan.endpoint(method, path)).charges(identity)]


def test_a_policy_needs_all_of_its_dimensions() -> None:
    """Limits by what an identity does not have do not apply to it."""
    plan = plan_of({"per": ["token"]}, {"per": ["token", "org"]}, {"per": ["team"]}, {}, dimensions=["team"])
    assert applied(plan, Identity(token="t")) == ["p0", "p3"]
    assert applied(plan, Identity(token="t", org="")) == ["p0", "p3"]
    assert applied(plan, Identity(token="t", org="o", dimensions={"team": "x"})) == ["p0", "p1", "p2", "p3"]


@pytest.mark.parametrize(
    ("methods", "paths", "method", "path", "applies"),
    [
        (["GET"], [], "HEAD", "/x", True),
        (["head"], [], "GET", "/x", True),
        (["POST"], [], "GET", "/x", False),
        ([], ["/x"], "GET", "/x", True),
        ([], ["/x"], "GET", "/xy", False),
        ([], ["/v1/*"], "GET", "/v1/a/{b}", True),
        ([], ["/v1/batch*"], "GET", "/v1/batches/{id}", True),
        ([], ["/v1/a/{b}"], "GET", "/v1/a/{b}", True),
        ([], ["/a[b]"], "GET", "/a[b]", True),
        ([], ["/a[b]"], "GET", "/ab", False),
        ([], ["*"], "GET", "*", True),
        ([], ["/x"], "GET", "*", False),
    ],
)
def test_methods_and_paths_narrow_a_policy(
    methods: list[str], paths: list[str], method: str, path: str, *, applies: bool
) -> None:
    """Methods (HEAD is GET) and templates or globs decide where a policy applies."""
    plan = plan_of({"methods": methods, "paths": paths})
    assert bool(applied(plan, Identity(), method, path)) == applies


@pytest.mark.parametrize(
    ("entry", "method", "path", "free"),
    [
        ("GET /healthz", "GET", "/healthz", True),
        ("GET /healthz", "HEAD", "/healthz", True),
        ("GET /healthz", "POST", "/healthz", False),
        ("/internal/*", "POST", "/internal/a/b", True),
        ("get /a/{b}", "GET", "/a/{b}", True),
    ],
)
def test_exempt_endpoints_have_no_rules(entry: str, method: str, path: str, *, free: bool) -> None:
    """An exempt entry names a path, with or without a method."""
    plan = plan_of({}, exempt=[entry])
    assert (applied(plan, Identity(), method, path) == []) == free


def test_which_rate_counts() -> None:
    """A granted rate wins over the plan, the plan over the rate; a plan without a limit takes the policy away."""
    plan = plan_of({"per": "org", "burst": 0.5, "plans": {"pro": "100/minute", "free": None}})
    rules = plan.rules(plan.endpoint("GET", "/x"))

    def told(**who: Any) -> list[tuple[int, int]]:
        return [(c.terms.limit, c.terms.allowance) for c in rules.charges(Identity(org="o", **who))]

    assert told() == [(10, 5)]
    assert told(plan="unheard-of") == [(10, 5)]
    assert told(plan="pro") == [(100, 50)]
    assert told(plan="free") == []
    assert told(plan="free", rates={"p0": "7/hour"}) == [(7, 3)]
    assert told(plan="pro", rates={"other": "7/hour"}) == [(100, 50)]


def test_costs_multiply() -> None:
    """A request of cost n takes n times the policy's own cost, and absurd products stay what Redis can hold."""
    plan = plan_of({"cost": 5}, {"cost": 10**15 - 1})
    charges = plan.rules(plan.endpoint("GET", "/x")).charges(Identity(), 3)
    assert charges[0].cost == 15
    assert plan.rules(plan.endpoint("GET", "/x")).charges(Identity(), 10**9)[1].cost == NEVER


def test_endpoint_and_method_are_dimensions() -> None:
    """`endpoint` counts each method of a template apart, `method` each method over all templates."""
    plan = plan_of({"per": "endpoint"}, {"per": "method"})

    def keys(method: str, path: str) -> list[str]:
        return [charge.key for charge in plan.rules(plan.endpoint(method, path)).charges(Identity())]

    get_x, post_x, get_y = keys("GET", "/x"), keys("POST", "/x"), keys("GET", "/y")
    assert len({get_x[0], post_x[0], get_y[0]}) == 3
    assert get_x[1] == get_y[1] != post_x[1]
    assert keys("HEAD", "/x") == get_x


@pytest.mark.parametrize(
    ("per", "scope"),
    [([], "global"), (["org"], "org"), (["org", "endpoint"], "endpoint"), (["method", "ip"], "method")],
)
def test_the_default_scope(per: list[str], scope: str) -> None:
    """`endpoint` if it is in `per`, else the first dimension, else `global`; or what the policy says."""
    assert plan_of({"per": per}).settings.limits[0].scope == scope
    assert plan_of({"per": per, "scope": "mine"}).settings.limits[0].scope == "mine"


@given(limit=st.integers(1, 10**6), percent=st.integers(0, 100))
def test_the_allowance_is_the_floor_of_what_was_written(limit: int, percent: int) -> None:
    """A burst of 0.29 of 100 is 29, though the float product is below it."""
    plan = plan_of({"rate": f"{limit}/minute", "burst": float(f"{percent / 100:.2f}")})
    (charge,) = plan.rules(plan.endpoint("GET", "/x")).charges(Identity())
    assert charge.terms.allowance == limit * percent // 100


def test_granted_rates_do_not_grow_without_bound() -> None:
    """Ten thousand different grants leave a bounded memory."""
    plan = plan_of({"per": "org"})
    rules = plan.rules(plan.endpoint("GET", "/x"))
    for n in range(1, 10_000):
        rules.charges(Identity(org="o", rates={"p0": f"{n}/minute"}))
    assert len(rules.rules[0]._terms) <= 4096


def test_made_up_endpoints_do_not_grow_without_bound() -> None:
    """`check` with ever new names forgets old ones."""
    plan = plan_of({})
    for n in range(20_001):
        plan.rules(plan.endpoint("GET", f"/{n}"))
    assert len(plan._endpoints) <= 10_000
    assert len(plan._rules) <= 10_000


async def test_a_name_that_two_endpoints_share_means_the_one_that_is_said(clock: ManualClock) -> None:
    """Functions of one name are counted apart, and each by its own limit."""

    def at(rate: str) -> Declared:
        def answer() -> None: ...

        return declared_on(limit(rate, per="org")(answer))

    limiter = Limiter(RateLimitSettings(), MemoryStore(clock=clock), clock)
    for path, rate in (("/a", "5/minute"), ("/b", "500/minute")):
        limiter.plan.declare("GET", path, said=at(rate))
    told = [await limiter.consume("answer", Identity(org="o"), endpoint=path) for path in ("/a", "/b")]
    assert [each.limits[0].remaining for each in told] == [4, 499]
