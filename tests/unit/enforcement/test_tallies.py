"""Tallies are exact counts of what was decided."""

from typing import Any

import pytest

from ratelimit import Identity, Limit, Limiter, MemoryStore, Quota, RateLimitSettings
from ratelimit.enforcement.tallies import MAX_POLICIES, OTHER, Tallies
from ratelimit.testing import ManualClock

WHO = Identity(token="t", org="o")


def limiter_of(clock: ManualClock, *policies: Any, **more: Any) -> tuple[Limiter, Tallies]:
    limiter = Limiter(RateLimitSettings(limits=policies, **more), MemoryStore(clock=clock), clock)
    return limiter, limiter.observer.count()


async def test_each_check_has_a_state(clock: ManualClock) -> None:
    """Within, near from four fifths on, over, or over in shadow; with the units that it charged."""
    limiter, tallies = limiter_of(
        clock,
        Limit(name="tight", rate="5/minute", per="token", burst=0.2),
        Limit(name="shadow", rate="2/minute", per="token", shadow=True),
        Limit(name="wide", rate="100/minute", per="token", cost=10),
    )
    for _ in range(8):
        await limiter.check(WHO)
    states = {
        name: (tally.within, tally.near, tally.over, tally.shadow_over) for name, tally in tallies.policies.items()
    }
    assert states == {"tight": (3, 3, 2, 0), "shadow": (1, 1, 0, 6), "wide": (8, 0, 0, 0)}
    assert {name: tally.units["charged"] for name, tally in tallies.policies.items()} == {
        "tight": 6,
        "shadow": 2,
        "wide": 60,
    }
    assert tallies.requests == {("admitted", "", "store"): 6, ("refused", "tight", "store"): 2}
    assert tallies.policies["tight"].utilization.number == 8
    assert tallies.policies["tight"].retry_after.number == 2
    assert tallies.durations["store"].number == 8


async def test_blocks_quotas_and_corrections_count(clock: ManualClock) -> None:
    """Under their own names."""
    limiter, tallies = limiter_of(
        clock, quotas=[Quota(name="month", limit=10, period="month", per="org", unit="words")]
    )
    decision = await limiter.check(WHO)
    await decision.settle({"words": 6})
    await decision.settle({"words": 2})
    await limiter.consume("month", WHO, 3, force=True)
    await limiter.release("month", WHO, 1)
    await limiter.block({"org": "o"})
    await limiter.check(WHO)
    assert tallies.policies["month"].units == {"charged": 1, "settled": 5, "refunded": 4, "released": 1, "forced": 3}
    assert tallies.requests == {("admitted", "", "store"): 1, ("refused", "blocked", "store"): 1}


async def test_without_measures_there_are_counts_alone(clock: ManualClock) -> None:
    """As statistics need them; a listener that measures turns the histograms on."""
    limiter = Limiter(
        RateLimitSettings(limits=[Limit(name="a", rate="5/minute", per="token")]), MemoryStore(clock=clock), clock
    )
    tallies = limiter.observer.count(measures=False)
    await limiter.check(WHO)
    assert (tallies.policies["a"].within, tallies.policies["a"].utilization.number, tallies.durations) == (1, 0, {})
    assert not limiter.observer.is_timing
    assert limiter.observer.count() is tallies
    await limiter.check(WHO)
    assert (tallies.policies["a"].within, tallies.policies["a"].utilization.number) == (2, 1)
    assert tallies.durations["store"].number == 1


def test_more_policies_than_can_be_told_apart_are_one() -> None:
    """The series stay bounded."""
    tallies = Tallies()
    for number in range(MAX_POLICIES + 50):
        tallies.of(f"p{number}").over += 1
    assert len(tallies.policies) == MAX_POLICIES + 1
    assert tallies.policies[OTHER].over == 50
    assert tallies.of("p0") is tallies.policies["p0"]


@pytest.mark.parametrize("near", [0.5, 0.9])
async def test_what_is_near_can_be_set(clock: ManualClock, near: float) -> None:
    """As a share of the limit."""
    limiter = Limiter(
        RateLimitSettings(limits=[Limit(name="a", rate="10/minute", per="token")]), MemoryStore(clock=clock), clock
    )
    tallies = Tallies(near)
    for _ in range(10):
        decision = await limiter.check(WHO)
        tallies.decided(decision, (), 0.0)
    assert tallies.policies["a"].near == round(10 * (1 - near)) + 1
