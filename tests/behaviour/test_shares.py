"""The promise: a priority with a share is admitted only until that part of a policy is used; the rest is for others."""

from typing import Any

import pytest

from ratelimit import Identity, Limiter, RateLimitSettings
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

SHARED = {"name": "p", "per": "org", "shares": {"backfill": 0.5, "crawler": 0.1}}
KINDS: dict[str, dict[str, Any]] = {
    "limits": {"rate": "10/minute", "burst": 0.5},
    "quotas": {"limit": 10, "period": "day"},
    "concurrency": {"limit": 10},
}


def who(priority: str | None = None) -> Identity:
    return Identity(org="o", priority=priority)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_share_is_left_to_others(store: Store, clock: ManualClock, kind: str) -> None:
    """Backfill gets 5 of 10, and nothing more; callers without a share get all of it, burst included."""
    limiter = Limiter(RateLimitSettings.model_validate({kind: [{**SHARED, **KINDS[kind]}]}), store, clock)
    assert [(await limiter.check(who("backfill"))).allowed for _ in range(7)] == [True] * 5 + [False] * 2
    capacity = 15 if kind == "limits" else 10
    assert sum([(await limiter.check(who())).allowed for _ in range(20)]) == capacity - 5
    refused = await limiter.check(who("backfill"))
    assert refused.binding is not None
    assert (refused.binding.limit, refused.binding.remaining) == (5, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_others_use_counts_against_a_share(store: Store, clock: ManualClock, kind: str) -> None:
    """A share is not a counter of its own: usage of other callers counts towards it."""
    limiter = Limiter(RateLimitSettings.model_validate({kind: [{**SHARED, **KINDS[kind]}]}), store, clock)
    for _ in range(4):
        await limiter.check(who())
    last = await limiter.check(who("backfill"))
    assert (last.allowed, last.limits[0].remaining) == (True, 0)
    assert not (await limiter.check(who("backfill"))).allowed
    assert (await limiter.check(who("unknown"))).allowed


async def test_a_share_of_less_than_one_unit(store: Store, clock: ManualClock) -> None:
    """A tenth of five is no unit: such a caller is always refused, with an infinite wait."""
    limits = [{**SHARED, "rate": "5/minute"}]
    limiter = Limiter(RateLimitSettings.model_validate({"limits": limits}), store, clock)
    refused = await limiter.check(who("crawler"))
    assert (refused.allowed, refused.retry_after, refused.limits[0].limit) == (False, float("inf"), 0)


async def test_the_wait_of_a_share_is_exact(store: Store, clock: ManualClock) -> None:
    """`retry_after` ends when usage has fallen so far that the share has room again."""
    limits = [{**SHARED, "rate": "10/minute"}]
    limiter = Limiter(RateLimitSettings.model_validate({"limits": limits}), store, clock)
    for _ in range(8):
        await limiter.check(who())
        clock.advance(seconds=1)
    refused = await limiter.check(who("backfill"))
    assert refused.retry_after == 60.001 - 8 + 3
    clock.advance(seconds=refused.retry_after - 0.001)
    assert not (await limiter.check(who("backfill"))).allowed
    clock.advance(ms=1)
    assert (await limiter.check(who("backfill"))).allowed
