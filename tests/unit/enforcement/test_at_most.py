"""Taking what is left: as many as there is room for, on both stores."""

import asyncio

import pytest

from ratelimit import Decision, Identity, Limit, Limiter, Quota, RateLimitSettings
from ratelimit.enforcement.at_most import take_at_most
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

WHO = Identity(token="t", org="acme")


@pytest.fixture
def limiter(store: Store, clock: ManualClock) -> Limiter:
    settings = RateLimitSettings(
        limits=[Limit(name="wide", rate="100/minute"), Limit(name="tight", rate="10/minute", per="token", cost=2)],
        quotas=[Quota(name="month", limit=50, period="month", per="org")],
    )
    return Limiter(settings, store, clock)


async def test_the_tightest_policy_says_how_many_are_granted(limiter: Limiter) -> None:
    """Each request takes the policy's own cost, and all policies are charged for what is granted."""
    decision = await limiter.check(WHO, cost=3, at_most=True)
    assert (decision.allowed, decision.granted) == (True, 3)
    decision = await limiter.check(WHO, cost=7, at_most=True)
    assert (decision.allowed, decision.granted) == (True, 2)
    assert {limit.policy: limit.remaining for limit in await limiter.limits(WHO)} == {
        "wide": 95,
        "tight": 0,
        "month": 45,
    }


async def test_nothing_left_is_a_refusal(limiter: Limiter) -> None:
    """With the wait until there is room again, and nothing is charged."""
    await limiter.check(WHO, cost=5)
    decision = await limiter.check(WHO, cost=4, at_most=True)
    assert (decision.allowed, decision.granted, decision.status) == (False, 0, 429)
    assert decision.retry_after > 0


async def test_concurrent_callers_share_what_is_left(limiter: Limiter) -> None:
    """Together they get it all, and no more."""
    decisions = await asyncio.gather(*(limiter.check(WHO, cost=3, at_most=True) for _ in range(5)))
    assert sum(decision.granted or 0 for decision in decisions) == 5


async def test_it_gives_up_where_others_are_always_faster() -> None:
    """After a few attempts the refusal is returned, however much each of them said is left."""
    asked = list[int]()
    limit = (await Limiter(RateLimitSettings(limits=[Limit(name="a", rate="9/minute")])).peek(WHO, cost=10)).violated[0]

    async def refuse(requests: int) -> Decision:
        asked.append(requests)
        return Decision.from_limits([limit._replace(cost=requests)])

    async def fits(requests: int) -> bool:
        return requests <= 9

    decision = await take_at_most(100, refuse, fits)
    assert (decision.allowed, decision.granted, asked) == (False, 0, [100, 9, 8, 7, 6])


@pytest.mark.parametrize("used", range(7))
@pytest.mark.parametrize("wanted", [1, 2, 5, 10])
async def test_the_burst_is_taken_too(store: Store, clock: ManualClock, used: int, wanted: int) -> None:
    """It is not in what remains, but there is room for it."""
    settings = RateLimitSettings(limits=[Limit(name="a", rate="4/minute", burst=0.5, per="token")])
    limiter = Limiter(settings, store, clock)
    if used:
        assert (await limiter.check(WHO, cost=used)).allowed
    decision = await limiter.check(WHO, cost=wanted, at_most=True)
    assert decision.granted == min(wanted, 6 - used)
    assert decision.allowed == (used < 6)


async def test_a_look_and_a_blocked_caller_are_granted_nothing(limiter: Limiter) -> None:
    """A number too."""
    assert (await limiter.check(WHO, cost=0, at_most=True)).granted == 0
    await limiter.block({"org": "acme"})
    assert (await limiter.check(WHO, cost=3, at_most=True)).granted == 0
