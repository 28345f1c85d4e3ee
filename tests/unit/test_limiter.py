"""The limiter: `check`, `peek` and their parameters, on both stores."""

import asyncio
import logging
import math
from typing import Any

import pytest

from ratelimit import (
    ConfigurationError,
    Decision,
    Identity,
    Limiter,
    MemoryStore,
    OverRelease,
    QuotaUsage,
    RateLimitSettings,
    RedisStore,
)
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.redis_server import RedisServer

ALICE = Identity(token="alice", org="acme")


def limiter_of(store: Store, clock: ManualClock, *limits: dict[str, Any]) -> Limiter:
    return Limiter(RateLimitSettings.model_validate({"limits": limits}), store, clock)


TOKEN = {"name": "token", "rate": "5/minute", "per": ["token"]}
ORG = {"name": "org", "rate": "3/minute", "per": ["org"]}


async def test_a_refused_request_takes_nothing_from_the_others(store: Store, clock: ManualClock) -> None:
    """Of ten requests under 5 a minute by token and 3 by organization, both counters count three."""
    limiter = limiter_of(store, clock, TOKEN, ORG)
    allowed = [(await limiter.check(ALICE)).allowed for _ in range(10)]
    assert allowed == [True] * 3 + [False] * 7
    assert [one.remaining for one in (await limiter.peek(ALICE)).limits] == [5 - 3, 3 - 3]


async def test_a_refusal_by_any_of_five_leaves_the_other_four(store: Store, clock: ManualClock) -> None:
    """The others keep their units, whichever of several limits is full."""
    for full in range(5):
        limits = [{"name": f"p{full}{i}", "rate": "1/minute" if i == full else "9/minute"} for i in range(5)]
        limiter = limiter_of(store, clock, *limits)
        await limiter.check(ALICE)
        refused = await limiter.check(ALICE)
        assert [one.remaining for one in refused.limits] == [0 if i == full else 8 for i in range(5)]
        assert [one.policy for one in refused.violated] == [f"p{full}{full}"]


async def test_peek_charges_nothing(store: Store, clock: ManualClock) -> None:
    """`peek` returns the decision that one more request would get, and changes nothing."""
    limiter = limiter_of(store, clock, TOKEN)
    for _ in range(10):
        decision = await limiter.peek(ALICE)
        assert (decision.allowed, decision.limits[0].remaining) == (True, 5)
    await limiter.check(ALICE, cost=5)
    decision = await limiter.peek(ALICE)
    assert (decision.allowed, decision.limits[0].remaining, decision.retry_after) == (False, 0, 60.001)


async def test_a_cost_is_charged_whole_or_not_at_all(store: Store, clock: ManualClock) -> None:
    """A cost for which there is no room leaves the remaining units to smaller ones."""
    limiter = limiter_of(store, clock, TOKEN)
    assert (await limiter.check(ALICE, cost=3)).limits[0].remaining == 2
    refused = await limiter.check(ALICE, cost=3)
    assert (refused.allowed, refused.limits[0].remaining) == (False, 2)
    assert (await limiter.check(ALICE, cost=2)).allowed
    assert (await limiter.check(ALICE, cost=6)).retry_after == math.inf


@pytest.mark.parametrize("cost", [-1, 1.5, True, "1", None, 10**15])
async def test_a_wrong_cost_is_refused(store: Store, clock: ManualClock, cost: Any) -> None:
    """A cost that is not a positive integer raises an error that names the argument."""
    with pytest.raises(ConfigurationError, match=r"^cost: "):
        await limiter_of(store, clock, TOKEN).check(ALICE, cost=cost)


async def test_a_shadow_counts_and_refuses_no_request(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A shadow policy is in the decision and in the log, and is charged whenever it has room itself."""
    limiter = limiter_of(store, clock, {**TOKEN, "rate": "2/minute", "shadow": True}, {**ORG, "rate": "9/minute"})
    with caplog.at_level(logging.INFO, "ratelimit"):
        decisions = [await limiter.check(ALICE) for _ in range(4)]
    assert [decision.allowed for decision in decisions] == [True] * 4
    assert [decision.limits[0].remaining for decision in decisions] == [1, 0, 0, 0]
    assert [decision.limits[0].retry_after > 0 for decision in decisions] == [False, False, True, True]
    assert all(decision.binding == decision.limits[1] for decision in decisions)
    assert len([line for line in caplog.messages if line.startswith("shadow policy token")]) == 2


async def test_a_request_that_another_limit_refuses_costs_a_shadow_nothing(store: Store, clock: ManualClock) -> None:
    """A shadow counts admitted requests only, as it would if it enforced."""
    limiter = limiter_of(store, clock, {**TOKEN, "shadow": True}, {**ORG, "rate": "1/minute"})
    for _ in range(5):
        decision = await limiter.check(ALICE)
    assert [one.remaining for one in decision.limits] == [4, 0]


async def test_endpoints_and_methods_choose_policies(store: Store, clock: ManualClock) -> None:
    """`method` and `endpoint` decide which policies are charged; an exempt endpoint has none."""
    settings = {
        "limits": [{**TOKEN, "methods": ["POST"], "paths": ["/v1/*"]}],
        "exempt": ["POST /v1/free"],
    }
    limiter = Limiter(RateLimitSettings.model_validate(settings), store, clock)
    assert [one.policy for one in (await limiter.check(ALICE, method="post", endpoint="/v1/a")).limits] == ["token"]
    for method, endpoint in (("GET", "/v1/a"), ("POST", "/v2/a"), ("POST", "/v1/free"), ("POST", "*")):
        decision = await limiter.check(ALICE, method=method, endpoint=endpoint)
        assert (decision.allowed, decision.limits, decision.binding) == (True, (), None)


async def test_burst_is_deducted_from_the_next_window(store: Store, clock: ManualClock) -> None:
    """10/minute with half as burst: 15 at once, then 10 a window under steady load, and 15 again after a pause."""
    limiter = limiter_of(store, clock, {**TOKEN, "rate": "10/minute", "burst": 0.5})

    async def served() -> int:
        return sum([(await limiter.check(ALICE)).allowed for _ in range(30)])

    assert await served() == 15
    clock.advance(seconds=60.001)
    assert await served() == 10
    clock.advance(seconds=60.001)
    assert await served() == 10
    clock.advance(seconds=200)
    assert await served() == 15


async def test_remaining_and_reset_inside_the_burst(store: Store, clock: ManualClock) -> None:
    """Above the nominal limit `remaining` is 0, but the limit is exhausted only when the burst is spent too."""
    limiter = limiter_of(store, clock, {**TOKEN, "rate": "2/minute", "burst": 0.5})
    limits = [(await limiter.check(ALICE)).limits[0] for _ in range(4)]
    assert [one.remaining for one in limits] == [1, 0, 0, 0]
    assert [one.exhausted for one in limits] == [False, False, True, True]
    assert [one.retry_after > 0 for one in limits] == [False, False, False, True]
    assert all(one.reset_at == clock() / 1e6 + one.reset_after and one.reset_after == 60.001 for one in limits)


async def test_parallel_checks_count_exactly(store: Store, clock: ManualClock) -> None:
    """Of 300 checks at the same moment, exactly as many as the limit are admitted."""
    limiter = limiter_of(store, clock, {**TOKEN, "rate": "77/minute"})
    decisions = await asyncio.gather(*(limiter.check(ALICE) for _ in range(300)))
    assert sum(decision.allowed for decision in decisions) == 77


async def test_a_cancelled_check_leaves_its_batch_alone(store: Store, clock: ManualClock) -> None:
    """Cancelling one of many waiting checks neither breaks nor delays the others."""
    limiter = limiter_of(store, clock, {**TOKEN, "rate": "500/minute"})
    tasks = [asyncio.create_task(limiter.check(ALICE)) for _ in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(getattr(result, "allowed", False) for result in results[1::2])
    assert (await limiter.check(ALICE)).allowed


async def test_as_a_context_manager_it_closes_its_store(redis_server: RedisServer, redis_url: str) -> None:
    """`async with` closes its connections, also those of a call in flight; closing twice is allowed."""
    settings = RateLimitSettings.model_validate({"limits": [TOKEN], "store": redis_url, "store_timeout": 10})
    with redis_server.client() as client:
        before = len(client.client_list())
        async with Limiter(settings) as limiter:
            assert (await limiter.check(ALICE)).allowed
            assert len(client.client_list()) > before
            last = asyncio.create_task(limiter.check(ALICE))
            await asyncio.sleep(0)
        assert (await last).limits[0].remaining == 3
        await limiter.aclose()
        client.ping()
        assert len(client.client_list()) == before


def test_constructing_connects_to_nothing() -> None:
    """A limiter may be made where no event loop runs and no server exists; its parts are public."""
    limiter = Limiter(RateLimitSettings.model_validate({"limits": [TOKEN], "store": "redis://host.invalid"}))
    assert isinstance(limiter.store, RedisStore)
    assert limiter.resolver.settings is limiter.settings
    assert len(limiter.overrides) == 0


async def test_a_limiter_polls_from_its_first_decision_until_it_is_closed(clock: ManualClock) -> None:
    """`start` does it earlier; a closed limiter that is used again polls again."""
    limiter = limiter_of(MemoryStore(clock=clock), clock, TOKEN)
    assert not limiter.is_started
    for _ in range(2):
        await limiter.check(ALICE)
        assert limiter.is_started
        assert len(limiter.poller.next_polls) == 1
        await limiter.aclose()
        assert not limiter.is_started
        assert limiter.poller.next_polls == []


async def test_a_policy_that_does_not_apply_lets_everything_pass(clock: ManualClock) -> None:
    """`consume`, `release` and `slot` count nothing for an identity that lacks a dimension."""
    settings = RateLimitSettings.model_validate(
        {"limits": [TOKEN], "concurrency": [{"name": "c", "limit": 1, "per": "org"}]}
    )
    limiter, stranger = Limiter(settings, MemoryStore(clock=clock), clock), Identity()
    assert await limiter.consume("token", stranger, 10**6) == Decision(True)
    assert await limiter.release("token", stranger, 10**6) == Decision(True)
    for _ in range(2):
        async with limiter.slot("c", stranger) as decision:
            assert decision == Decision(True)
    assert await limiter.usage(stranger) == ()


async def test_a_release_of_more_than_was_charged_releases_nothing(store: Store, clock: ManualClock) -> None:
    """It raises `OverRelease`, and the units stay charged."""
    limiter = limiter_of(store, clock, TOKEN)
    await limiter.consume("token", ALICE, 3)
    with pytest.raises(OverRelease, match="^amount: fewer than 4 requests of 'token' are charged; none released"):
        await limiter.release("token", ALICE, 4)
    assert (await limiter.release("token", ALICE, 2)).limits[0].remaining == 4


async def test_usage_is_told_by_quota(store: Store, clock: ManualClock) -> None:
    """Used and remaining units, the end of the period, and the usage of the last one; a level never resets."""
    quotas = [
        {"name": "hourly", "limit": 5, "period": "hour", "per": "org", "unit": "items", "cost": 2},
        {"name": "level", "limit": 9, "per": "org"},
    ]
    limiter = Limiter(RateLimitSettings.model_validate({"quotas": quotas}), store, clock)
    await limiter.check(ALICE)
    clock.advance(seconds=3600)
    await limiter.check(ALICE)
    end = float(clock() // 3_600_000_000 * 3600 + 3600)
    assert await limiter.usage(ALICE) == (
        QuotaUsage("hourly", "items", "hour", 5, 2, 3, end, 2),
        QuotaUsage("level", "requests", None, 9, 2, 7, None, 0),
    )


@pytest.mark.parametrize("wrong", ["t", None, {"token": "t"}])
async def test_what_is_no_identity_is_named(store: Store, clock: ManualClock, wrong: Any) -> None:
    """By every method that takes one."""
    limiter = limiter_of(store, clock, TOKEN)
    for call in (
        limiter.check(wrong),
        limiter.peek(wrong),
        limiter.limits(wrong),
        limiter.consume("token", wrong),
        limiter.release("token", wrong),
        limiter.usage(wrong),
        limiter.reset(wrong),
    ):
        with pytest.raises(ConfigurationError, match="identity: must be an Identity, got"):
            await call


def test_what_is_no_settings_is_named() -> None:
    """At construction."""
    wrong: Any = []
    with pytest.raises(ConfigurationError, match="settings: must be RateLimitSettings, got"):
        Limiter(wrong)
