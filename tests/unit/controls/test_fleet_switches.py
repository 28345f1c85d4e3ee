"""Fleet switches: policies in shadow or paused, in every worker, until they end."""

import json

import pytest

from ratelimit import Concurrency, ConfigurationError, Identity, Limit, Limiter, Quota, RateLimitSettings
from ratelimit.model.fleet_switch import FleetSwitch
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds

SETTINGS = RateLimitSettings(
    limits=[Limit(name="a", rate="1/minute", per="token"), Limit(name="b/c", rate="2/minute", per="org")],
    quotas=[Quota(name="q", limit=100, period="day", per="org")],
    concurrency=[Concurrency(name="n", limit=50, per="org")],
)
WHO = Identity(token="t", org="o")


async def test_a_policy_in_shadow_counts_and_refuses_nothing(store: Store, clock: ManualClock) -> None:
    """Others go on refusing; one call ends it, and what was counted meanwhile stays."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        await limiter.fleet.shadow(policy="a", why="canary")
        decisions = [await limiter.check(WHO) for _ in range(3)]
        assert [decision.allowed for decision in decisions] == [True, True, False]
        assert [limit.policy for limit in decisions[1].refused_in_shadow] == ["a"]
        assert [limit.policy for limit in decisions[2].violated] == ["b/c"]
        assert await limiter.fleet.off(policy="a")
        assert not await limiter.fleet.off(policy="a")
        assert [limit.policy for limit in (await limiter.check(WHO)).violated] == ["a", "b/c"]


async def test_a_pause_of_all_counts_nothing_until_it_ends(store: Store, clock: ManualClock) -> None:
    """A policy with a switch of its own goes by that; workers learn of the end by their poll."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        await limiter.fleet.pause(until=in_seconds(clock, 5), by="ann")
        await limiter.fleet.shadow(policy="b/c", until=in_seconds(clock, 60))
        for decision in [await limiter.check(WHO) for _ in range(5)]:
            assert (decision.allowed, [limit.policy for limit in decision.limits]) == (True, ["b/c"])
        assert [(each.policy, each.mode, each.by) for each in await limiter.fleet.list()] == [
            (None, "paused", "ann"),
            ("b/c", "shadow", None),
        ]
        assert (limiter.fleet.holding("a") or FleetSwitch(policy="", mode="shadow")).mode == "paused"
        clock.advance(seconds=5)
        await limiter.fleet.end_those_over()
        assert limiter.fleet.holding("a") is None
        assert [(await limiter.check(WHO)).allowed for _ in range(2)] == [True, False]


async def test_a_pause_does_not_end_a_shadow(store: Store, clock: ManualClock) -> None:
    """Each has an entry of its own: the shadow goes on when the pause is over, or was ended."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        await limiter.fleet.shadow(policy="a", until=in_seconds(clock, 60))
        await limiter.fleet.pause(policy="a", until=in_seconds(clock, 1))
        assert "a" not in [limit.policy for limit in (await limiter.check(WHO)).limits]
        clock.advance(seconds=1)
        await limiter.fleet.end_those_over()
        decisions = [await limiter.check(WHO) for _ in range(2)]
        assert [decision.allowed for decision in decisions] == [True, False]
        assert [limit.policy for limit in decisions[1].violated] == ["b/c"]
        await limiter.fleet.pause(policy="a", until=in_seconds(clock, 9))
        assert await limiter.fleet.off(policy="a", mode="paused")
        assert [(each.policy, each.mode) for each in await limiter.fleet.list()] == [("a", "shadow")]


async def test_a_policy_in_shadow_takes_no_default_s_place(clock: ManualClock) -> None:
    """By a switch as by the settings: the default limit refuses."""
    settings = RateLimitSettings(
        limits=[
            Limit(name="default", rate="2/minute", per="token", default=True),
            Limit(name="own", rate="5/minute", per="token", paths="/x"),
        ]
    )
    limiter = Limiter(settings, clock=clock)
    await limiter.fleet.shadow(policy="own")
    assert [(await limiter.check(WHO, endpoint="/x")).allowed for _ in range(3)] == [True, True, False]


async def test_a_paused_quota_can_be_reset_and_a_removed_policy_switched_off(store: Store, clock: ManualClock) -> None:
    """The counters are there while they are not used, and so are switches."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        await limiter.consume("q", WHO, 100)
        await limiter.fleet.pause(until=in_seconds(clock, 9))
        assert await limiter.reset(WHO, "q") == 1
        await limiter.fleet.shadow(policy="a")
        await limiter.reload(RateLimitSettings())
        assert await limiter.fleet.off(policy="a")
        assert [each.policy for each in await limiter.fleet.list()] == [None]


async def test_another_worker_follows(store: Store, clock: ManualClock) -> None:
    """By what it reads once a second."""
    async with Limiter(SETTINGS, store, clock) as one, Limiter(SETTINGS, store, clock) as other:
        await one.fleet.pause(until=in_seconds(clock, 60))
        await other.overrides.refresh()
        assert [(await other.check(WHO)).limits for _ in range(3)] == [(), (), ()]


async def test_wrong_values_name_their_field(clock: ManualClock) -> None:
    """And change nothing."""
    limiter = Limiter(SETTINGS, clock=clock)
    with pytest.raises(ConfigurationError, match="until: a pause needs an end"):
        await limiter.fleet.pause(until=None)
    with pytest.raises(ConfigurationError, match="until: .* is past"):
        await limiter.fleet.pause(until=in_seconds(clock, -1))
    with pytest.raises(ConfigurationError, match="policy: 'x' is not one of"):
        await limiter.fleet.shadow(policy="x")
    with pytest.raises(ConfigurationError, match="why: must be text"):
        await limiter.fleet.shadow(why="x" * 501)
    assert await limiter.fleet.list() == []


async def test_an_unreadable_switch_has_no_effect(store: Store, clock: ManualClock) -> None:
    """The log says so, and the others hold."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        broken = {"policy": None, "mode": "off", "until": None}
        await store.put_entry("rl:{overrides}", "!switch:paused:*", json.dumps(broken).encode())
        await store.put_entry("rl:{overrides}", "!switch:shadow:a", b"[")
        await limiter.overrides.refresh()
        assert [(await limiter.check(WHO)).allowed for _ in range(2)] == [True, False]
