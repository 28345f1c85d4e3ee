"""The promise: three windows, a quota and a concurrency limit are one step, all or nothing."""

from typing import Any

import pytest

from ratelimit import Identity, Limiter, RateLimitSettings, RedisStore
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.testing import ManualClock
from tests.support.redis_server import RedisServer

WIDE: dict[str, list[dict[str, Any]]] = {
    "limits": [
        {"name": "token", "rate": "100/minute", "per": "token", "burst": 0.25},
        {"name": "org", "rate": "100/hour", "per": "org"},
        {"name": "endpoint", "rate": "100/second", "per": ["endpoint", "token"]},
    ],
    "quotas": [{"name": "month", "limit": 100, "period": "month", "per": "org"}],
    "concurrency": [{"name": "runs", "limit": 100, "per": "org"}],
}
NARROW: dict[str, dict[str, Any]] = {
    "token": {"rate": "1/minute", "burst": 0},
    "org": {"rate": "1/hour"},
    "endpoint": {"rate": "1/second"},
    "month": {"limit": 1},
    "runs": {"limit": 1},
}
WHO = Identity(token="t", org="o")


def settings_with(narrow: str | None) -> RateLimitSettings:
    return RateLimitSettings.model_validate(
        {
            section: [{**policy, **(NARROW[policy["name"]] if policy["name"] == narrow else {})} for policy in policies]
            for section, policies in WIDE.items()
        }
    )


async def used(limiter: Limiter, store: Store) -> dict[str, int]:
    """Return the usage of each policy."""
    charges = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/")).charges(WHO)
    reply = await store.submit(StoreRequest(charges, Operation.USAGE))
    return {charge.limit.policy: used for charge, (used, _, _) in zip(charges, reply.readings, strict=True)}


@pytest.mark.parametrize("narrow", NARROW)
async def test_a_refusal_by_one_policy_charges_no_other(store: Store, clock: ManualClock, narrow: str) -> None:
    """Whichever of five policies refuses, none of them counts anything."""
    limiter = Limiter(settings_with(narrow), store, clock)
    assert (await limiter.check(WHO, endpoint="/")).allowed
    before = await used(limiter, store)
    assert before == dict.fromkeys(NARROW, 1)
    refused = await limiter.check(WHO, endpoint="/")
    assert [limit.policy for limit in refused.violated] == [narrow]
    assert refused.status == (403 if narrow == "month" else 429)
    assert await used(limiter, store) == before


async def test_five_policies_are_one_command(redis_server: RedisServer, redis_url: str) -> None:
    """Each request is one script call, and so is each release; overrides are polled in addition."""
    async with Limiter(settings_with(None), RedisStore(redis_url, timeout=10)) as limiter:
        await limiter.check(WHO, endpoint="/")  # The first call loads the script.
        with redis_server.client() as client:
            client.config_resetstat()
            for n in range(1, 21):
                decision = await limiter.check(WHO, endpoint="/")
                assert calls(client)["evalsha"] == 2 * n - 1
                await limiter.finish(decision)
            commands = calls(client)
        assert commands.pop("hget", 0) < 10
        assert commands == {"evalsha": 40}
        assert len(decision.limits) == 5


def calls(client: Any) -> dict[str, int]:
    """Return how often clients sent each command; commands that scripts call are left out."""
    stats = client.info("commandstats")
    inside = {"mget", "get", "set", "setrange", "time", "zcount", "zadd", "zscore", "zrem", "zremrangebyscore"}
    names = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    known = {*inside, "pexpire", "info", "config|resetstat", "config", "client|setinfo", "client", "hello", "select"}
    return {name: count for name, count in names.items() if name not in known}


async def test_a_shadow_policy_of_each_kind_refuses_no_request(store: Store, clock: ManualClock) -> None:
    """The decision names the shadow policies that would have refused, and the request is admitted."""
    shadows = {
        section: [{**policy, **NARROW[policy["name"]], "shadow": True} for policy in policies]
        for section, policies in WIDE.items()
    }
    limiter = Limiter(RateLimitSettings.model_validate(shadows), store, clock)
    decisions = [await limiter.check(WHO, endpoint="/") for _ in range(3)]
    assert [decision.allowed for decision in decisions] == [True] * 3
    assert [[limit.retry_after > 0 for limit in each.limits] for each in decisions] == [
        [False] * 5,
        [True] * 5,
        [True] * 5,
    ]
    for decision in decisions:
        await limiter.finish(decision)
    assert (await used(limiter, store))["runs"] == 0
