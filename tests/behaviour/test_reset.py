"""The promise: `reset` empties what a caller has used, and nothing else."""

from collections.abc import AsyncIterator

import pytest

from ratelimit import Concurrency, ConfigurationError, Identity, Limit, Limiter, Quota, RateLimitSettings, limit
from ratelimit.config.declarations import declaration_of
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

SETTINGS = RateLimitSettings(
    limits=[
        Limit(name="token", rate="2/minute", per="token", plans={"pro": "2/hour"}),
        Limit(name="place", rate="2/minute", per=["endpoint", "token"]),
        Limit(name="jobs", rate="2/minute", per="org", manual=True),
        Limit(name="all", rate="100/minute"),
    ],
    quotas=[Quota(name="month", limit=2, period="month", per="org"), Quota(name="stored", limit=9, per="org")],
    concurrency=[Concurrency(name="runs", limit=5, per="org")],
)
WHO = Identity(token="t", org="o")
OTHER = Identity(token="u", org="p")


async def left(limiter: Limiter, identity: Identity = WHO, endpoint: str = "/a") -> dict[str, int]:
    found = await limiter.limits(identity, endpoint=endpoint)
    return {each.policy: each.remaining for each in found if each.policy not in {"all", "runs"}}


@pytest.fixture
async def limiter(store: Store, clock: ManualClock) -> AsyncIterator[Limiter]:
    async with Limiter(SETTINGS, store, clock) as limiter:
        yield limiter


async def test_windows_and_calendar_quotas_are_emptied(limiter: Limiter) -> None:
    """At every endpoint, with the policies that are charged by name; levels, permits and other callers stay."""
    full = await left(limiter)
    for who in (WHO, OTHER):
        for endpoint in ("/a", "/b"):
            assert (await limiter.check(who, endpoint=endpoint)).allowed
        assert (await limiter.consume("jobs", who, 2)).allowed
    assert not (await limiter.check(WHO, endpoint="/a")).allowed
    assert await limiter.reset(WHO) == 5
    assert await left(limiter) == await left(limiter, endpoint="/b") == {**full, "stored": 7}
    assert (await limiter.check(WHO, endpoint="/a")).allowed
    assert (await limiter.consume("jobs", WHO, 2)).allowed
    assert (await limiter.limits(WHO))[2].remaining == 95, "what all callers share is not emptied"
    assert await left(limiter, OTHER) == {"token": 0, "place": 1, "month": 0, "stored": 7}


async def test_one_policy_by_its_name(limiter: Limiter) -> None:
    """A level too, and permits."""
    for _ in range(2):
        await limiter.check(WHO, endpoint="/a")
    assert await limiter.reset(WHO, "stored") == 1
    assert await left(limiter) == {"token": 0, "place": 0, "month": 0, "stored": 9}
    assert await limiter.reset(WHO, "token") == 1
    assert await left(limiter) == {"token": 2, "place": 0, "month": 0, "stored": 9}
    assert await limiter.reset(WHO, "runs") == 1
    assert await limiter.reset(WHO, "runs") == 0
    with pytest.raises(ConfigurationError, match="policy: 'x' is not one of"):
        await limiter.reset(WHO, "x")


async def test_a_caller_that_changed_its_plan_is_reset_too(limiter: Limiter) -> None:
    """Each period that a rate may have is another counter."""
    for _ in range(2):
        await limiter.check(WHO)
    assert await limiter.reset(Identity(token="t", org="o", plan="pro"), "token") == 1
    assert (await left(limiter))["token"] == 2


async def test_limits_of_decorators_are_reset(store: Store, clock: ManualClock) -> None:
    """As soon as the routes are known."""

    @limit("1/minute", per="token")
    def answer() -> None: ...

    limiter = Limiter(RateLimitSettings(), store, clock)
    limiter.resolver.register_endpoint("GET", "/x", declaration=declaration_of(answer))
    assert [(await limiter.check(WHO, endpoint="/x")).allowed for _ in range(2)] == [True, False]
    assert await limiter.reset(WHO) == 1
    assert (await limiter.check(WHO, endpoint="/x")).allowed


async def test_what_was_used_in_the_period_before_stays_known(limiter: Limiter, clock: ManualClock) -> None:
    """A quota of the calendar is emptied for this period alone."""
    await limiter.check(WHO)
    clock.advance(seconds=32 * 86_400)
    await limiter.check(WHO)
    await limiter.reset(WHO)
    month, _ = await limiter.usage(WHO)
    assert (month.used, month.last) == (0, 1)


async def test_paths_below_a_route_for_any_path_are_reset(store: Store, clock: ManualClock) -> None:
    """By the patterns of the settings, whichever worker has seen them."""
    settings = RateLimitSettings(limits=[Limit(name="a", rate="1/minute", per=["endpoint", "token"], paths="/v1/*")])
    seen, other = Limiter(settings, store, clock), Limiter(settings, store, clock)
    place = seen.resolver.endpoint("POST", matched_patterns=("/v1/*",))
    for expected in (True, False):
        charges = seen.resolver.policies_at(place).charges(WHO)
        assert (await seen.decide(charges)).allowed is expected
    assert await other.reset(WHO) == 1


async def test_a_caller_without_counters_has_nothing_to_reset(limiter: Limiter) -> None:
    """An unknown one, and one that has used nothing."""
    assert await limiter.reset(Identity()) == 0
    assert await limiter.reset(OTHER) == 0
