"""The promise: quotas per calendar period in UTC, and levels; an exhausted quota is a 403, which no client retries."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from ratelimit import ConfigurationError, Identity, Limiter, OverRelease, Quota, RateLimitSettings
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

WHO = Identity(org="acme")


def limiter_with(store: Store, clock: ManualClock, *quotas: Quota, **more: Any) -> Limiter:
    return Limiter(RateLimitSettings(quotas=list(quotas), **more), store, clock)


def at(*date: int) -> int:
    """Return an instant in UTC as epoch microseconds."""
    return round(datetime(*date, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("period", "midnight"),
    [
        ("month", (2027, 1, 1)),
        ("month", (2028, 3, 1)),
        ("month", (2027, 3, 1)),
        ("month", (2100, 3, 1)),
        ("year", (2028, 1, 1)),
        ("week", (2026, 11, 23)),
        ("day", (2028, 2, 29)),
        ("hour", (2026, 10, 25, 1)),
    ],
)
async def test_a_period_ends_at_midnight_utc(
    store: Store, clock: ManualClock, period: Any, midnight: tuple[int, ...]
) -> None:
    """A period ends to the millisecond, also in December and in February with and without a leap day."""
    limiter = limiter_with(store, clock, Quota(name="q", limit=2, period=period, per="org"))
    clock.now = at(*midnight) - 1000
    assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True, True, False]
    refused = await limiter.check(WHO)
    assert (refused.status, refused.retry_after) == (403, 0.001)
    assert refused.binding is not None
    assert refused.binding.reset_at == at(*midnight) / 1_000_000
    clock.advance(ms=1)
    first = await limiter.check(WHO)
    assert (first.allowed, first.limits[0].remaining) == (True, 1)
    (usage,) = await limiter.usage(WHO)
    assert (usage.used, usage.last, usage.limit, usage.remaining) == (1, 2, 2, 1)


async def test_the_previous_period_is_reported(store: Store, clock: ManualClock) -> None:
    """`usage` reports this month and the previous one, also without a request since."""
    limiter = limiter_with(store, clock, Quota(name="gb", limit=100, period="month", per="org", unit="GB"))
    clock.now = at(2026, 11, 10)
    await limiter.consume("gb", WHO, 40)
    clock.now = at(2026, 12, 31)
    (usage,) = await limiter.usage(WHO)
    assert usage == ("gb", "GB", "month", 100, 0, 100, at(2027, 1, 1) / 1_000_000, 40)
    clock.now = at(2027, 1, 1)
    assert (await limiter.usage(WHO))[0].last == 0
    assert await limiter.usage(Identity(token="x")) == ()


async def test_a_level_rises_and_falls(store: Store, clock: ManualClock) -> None:
    """Requests and `consume` raise a level, `release` lowers it, and time does not."""
    items = Quota(name="items", limit=10, per="org", unit="items")
    limiter = limiter_with(store, clock, items)
    assert (await limiter.check(WHO, cost=6)).allowed
    assert (await limiter.consume("items", WHO, 4)).limits[0].remaining == 0
    refused = await limiter.consume("items", WHO)
    assert (refused.status, refused.retry_after) == (403, math.inf)
    clock.advance(seconds=400 * 86_400)
    assert not (await limiter.check(WHO)).allowed
    released = await limiter.release("items", WHO, 7)
    assert (released.allowed, released.limits[0].remaining) == (True, 7)
    (usage,) = await limiter.usage(WHO)
    assert (usage.used, usage.last, usage.period, usage.resets_at) == (3, 0, None, None)


async def test_a_forced_charge_is_counted_above_the_limit(store: Store, clock: ManualClock) -> None:
    """With `force`, units that were already spent count above the limit, and later charges are refused."""
    limiter = limiter_with(store, clock, Quota(name="hours", limit=10, period="month", per="org"))
    forced = await limiter.consume("hours", WHO, 25, force=True)
    assert (forced.allowed, forced.limits[0].remaining) == (True, 0)
    assert (await limiter.usage(WHO))[0].used == 25
    assert (await limiter.consume("hours", WHO)).status == 403


async def test_releasing_more_than_was_charged_raises(store: Store, clock: ManualClock) -> None:
    """Such a release raises `OverRelease` and releases nothing."""
    limiter = limiter_with(store, clock, Quota(name="items", limit=10, per="org", unit="items"))
    await limiter.consume("items", WHO, 3)
    with pytest.raises(OverRelease, match="fewer than 4 items of 'items' are charged; none released"):
        await limiter.release("items", WHO, 4)
    assert (await limiter.usage(WHO))[0].used == 3
    assert (await limiter.release("items", WHO, 3)).limits[0].remaining == 10
    with pytest.raises(OverRelease):
        await limiter.release("items", WHO)


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, None, 10**15])
async def test_an_amount_is_a_positive_integer(store: Store, clock: ManualClock, amount: Any) -> None:
    """Any other amount raises before anything is counted."""
    limiter = limiter_with(store, clock, Quota(name="items", limit=10, per="org"))
    for ask in (limiter.consume, limiter.release):
        with pytest.raises(ConfigurationError, match="amount: must be a positive integer"):
            await ask("items", WHO, amount)
    assert (await limiter.usage(WHO))[0].used == 0


async def test_consume_and_release_check_the_policy(store: Store, clock: ManualClock) -> None:
    """Unknown policies and those of permits raise; a policy that does not apply to the caller allows."""
    settings = {
        "quotas": [{"name": "q", "limit": 1, "per": "org"}, {"name": "e", "limit": 1, "per": ["endpoint", "org"]}],
        "concurrency": [{"name": "runs", "limit": 1, "per": "org"}],
    }
    limiter = Limiter(RateLimitSettings.model_validate(settings), store, clock)
    for ask in (limiter.consume, limiter.release):
        with pytest.raises(ConfigurationError, match="policy: 'none' is not one of e, q, runs"):
            await ask("none", WHO)
        with pytest.raises(ConfigurationError, match="policy: 'runs' is a Concurrency"):
            await ask("runs", WHO)
        with pytest.raises(ConfigurationError, match="policy: 'e' is counted for each endpoint"):
            await ask("e", WHO)
        assert (await ask("q", Identity(token="t"))).allowed
    assert (await limiter.consume("e", WHO, endpoint="/a")).limits[0].remaining == 0
    assert (await limiter.check(WHO, endpoint="/a")).violated[0].policy == "e"


async def test_plans_of_a_quota(store: Store, clock: ManualClock) -> None:
    """A plan may have its own limit, no limit, or zero."""
    quota = Quota(name="q", limit=5, period="day", per="org", plans={"big": 100, "free": 0, "internal": None})
    limiter = limiter_with(store, clock, quota)
    decisions = [
        await limiter.check(Identity(org=str(plan), plan=plan)) for plan in (None, "other", "big", "free", "internal")
    ]
    assert [decision.limits[0].remaining if decision.limits else None for decision in decisions] == [4, 4, 99, 0, None]
    assert [decision.status for decision in decisions] == [200, 200, 200, 403, 200]


MONTH = {"name": "requests", "limit": 2, "period": "month", "per": "org"}


def test_the_refusal_of_a_quota(limited: Callable[..., TestClient], clock: ManualClock) -> None:
    """A refusal is a 403 with Limit and Reset, without Remaining and Retry-After; successes carry no header of a quota."""
    clock.now = at(2026, 12, 31)
    client = limited(quotas=[MONTH], response={"problem_base": "https://docs.example.com/api-errors#"})
    served = client.get("/")
    assert served.status_code == 200
    assert not [name for name in served.headers if name.startswith(("x-ratelimit", "ratelimit"))]
    client.get("/")
    refused = client.get("/")
    assert refused.status_code == 403
    assert {
        name: value for name, value in refused.headers.items() if name.startswith(("x-rate", "retry", "cache"))
    } == {
        "cache-control": "no-store",
        "x-ratelimit-limit": "2",
        "x-ratelimit-reset": str(at(2027, 1, 1) // 1_000_000),
        "x-ratelimit-scope": "org",
    }
    assert refused.json() == {
        "type": "https://docs.example.com/api-errors#quota_exceeded",
        "title": "Quota exceeded",
        "status": 403,
        "detail": "You've exceeded the per-org quota (2 requests per month). It resets at 2027-01-01T00:00:00Z.",
        "scope": "org",
        "code": "quota_exceeded",
        "policy": "requests",
        "period": "month",
        "resets_at": "2027-01-01T00:00:00Z",
        "instance": refused.json()["instance"],
    }


def test_a_problem_of_type_blank_has_the_title_of_its_status(limited: Callable[..., TestClient]) -> None:
    """Without `problem_base` a 403 has the type `about:blank` and the status's title (RFC 9457 §4.2.1)."""
    client = limited(quotas=[{**MONTH, "limit": 1, "code": "plan_used_up", "detail": "Upgrade."}])
    client.get("/")
    body = client.get("/").json()
    assert (body["type"], body["title"], body["code"], body["detail"]) == (
        "about:blank",
        "Forbidden",
        "plan_used_up",
        "Upgrade.",
    )


def test_a_level_that_is_full(limited: Callable[..., TestClient]) -> None:
    """A full level is a 403 without a reset, which is unknown; with `status=429` it gives a wait of a second."""
    level = {"name": "items", "limit": 5, "per": "org", "unit": "items", "cost": 3}
    client = limited(quotas=[level], response={"headers": ["x-ratelimit", "ietf"]})
    client.get("/")
    refused = client.get("/")
    assert refused.status_code == 403
    assert (refused.json()["period"], refused.json()["resets_at"]) == (None, None)
    assert refused.json()["detail"] == "You've exceeded the per-org quota (5 items)."
    names = [name for name in refused.headers if name.startswith(("x-ratelimit", "ratelimit", "retry"))]
    assert names == ["x-ratelimit-limit", "x-ratelimit-scope"]
    draining = limited(quotas=[{**level, "status": 429}], response={"headers": ["x-ratelimit", "ietf"]})
    draining.get("/")
    refused = draining.get("/")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["ratelimit-policy"] == '"items";q=5'
    assert refused.headers["ratelimit"] == '"items";r=0;t=1'
    assert refused.json()["code"] == "quota_exceeded"
    assert refused.json()["detail"] == "You've exceeded the per-org quota (5 items). Try again in 1 second."


@pytest.mark.parametrize("problem", ["rfc9457", "legacy"])
def test_a_cost_that_a_level_can_never_hold(limited: Callable[..., TestClient], problem: str) -> None:
    """A cost above a level, or a level of zero, is refused with a detail that says so, and is no 500."""
    level = {"name": "items", "limit": 5, "per": "org", "cost": 6, "status": 429}
    for policy in (level, {**level, "cost": 1, "plans": {"none": 0}}):
        client = limited(quotas=[policy], response={"problem": problem})
        refused = client.get("/", headers={"x-plan": "none"})
        assert refused.status_code == 429
        assert "retry-after" not in refused.headers
        assert "can ever admit" in refused.text


def test_a_plan_without_permits(limited: Callable[..., TestClient], clock: ManualClock) -> None:
    """Waiting does not help: there is no Retry-After, Reset is 60 s away, and the detail gives the reason."""
    client = limited(concurrency=[{"name": "runs", "limit": 5, "per": "org", "plans": {"none": 0}}])
    refused = client.get("/", headers={"x-plan": "none"})
    assert (refused.status_code, "retry-after" in refused.headers) == (429, False)
    assert int(refused.headers["x-ratelimit-reset"]) == clock.now // 1_000_000 + 60
    assert refused.json()["detail"] == "The per-org limit (0 at a time) admits none."


def test_the_legacy_shape_of_a_quota(limited: Callable[..., TestClient]) -> None:
    """The flat body says 403, and that the request is not retryable."""
    client = limited(quotas=[{**MONTH, "limit": 1}], response={"problem": "legacy"})
    client.get("/")
    body = client.get("/").json()
    assert (body["status_code"], body["error"], body["retryable"]) == (403, "quota_exceeded", False)


def test_the_longest_wait_determines_the_status(limited: Callable[..., TestClient], clock: ManualClock) -> None:
    """If the rate has the longer wait, the status is 429; if the quota has it, 403."""
    clock.now = at(2026, 12, 31, 23, 59)
    rate = {"name": "rate", "rate": "1/hour", "per": "org"}
    headers = {"headers": ["ietf"]}
    client = limited(limits=[rate], quotas=[{**MONTH, "limit": 1}], response=headers)
    client.get("/")
    refused = client.get("/")
    assert (refused.status_code, refused.json()["policy"]) == (429, "rate")
    assert refused.json()["violated-policies"] == ["rate", "requests"]
    assert refused.headers["ratelimit-policy"] == '"rate";q=1;w=3600'
    longer = limited(limits=[rate], quotas=[{**MONTH, "limit": 1, "period": "year"}], response=headers)
    clock.now = at(2026, 5, 1)
    longer.get("/")
    refused = longer.get("/")
    assert (refused.status_code, refused.json()["policy"]) == (403, "requests")
    assert "ratelimit" not in refused.headers


@pytest.mark.parametrize("kind", ["limits", "quotas", "levels", "concurrency"])
def test_capacity_is_refused_without_numbers(limited: Callable[..., TestClient], kind: str) -> None:
    """Policies without a dimension, of any kind, refuse with `capacity_exceeded` and the configured status."""
    policies = {
        "limits": {"limits": [{"name": "all", "rate": "5/minute", "cost": 6}]},
        "quotas": {"quotas": [{"name": "all", "limit": 5, "period": "day", "cost": 6}]},
        "levels": {"quotas": [{"name": "all", "limit": 5, "cost": 4}]},
        "concurrency": {"concurrency": [{"name": "all", "limit": 1, "plans": {"none": 0}}]},
    }
    client = limited(**policies[kind], response={"capacity_status": 503, "headers": ["x-ratelimit", "ietf"]})
    client.get("/", headers={"x-plan": "none"})
    refused = client.get("/", headers={"x-plan": "none"})
    assert refused.status_code == 503
    assert {*refused.json()} == {"type", "title", "status", "detail", "code", "instance"}
    assert refused.json()["code"] == "capacity_exceeded"
    assert not any(character.isdigit() for character in refused.json()["detail"].replace("1 second", ""))
    headers = {name: value for name, value in refused.headers.items() if "ratelimit" in name}
    assert headers == {"x-ratelimit-scope": "global"}
    assert refused.headers.get("retry-after") == ("1" if kind == "levels" else None)
