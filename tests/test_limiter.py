"""The limiter: every door ends in the same decision, on both stores."""

import asyncio
import logging
import math
from typing import Any

import pytest

from ratelimit import ConfigurationError, Identity, Limiter, RateLimitSettings
from ratelimit.stores import Store
from ratelimit.testing import ManualClock
from tests.support.redis_server import RedisServer

ALICE = Identity(token="alice", org="acme")


def limiter_of(store: Store, clock: ManualClock, *limits: dict[str, Any]) -> Limiter:
    return Limiter(RateLimitSettings.model_validate({"limits": limits}), store, clock)


TOKEN = {"name": "token", "rate": "5/minute", "per": ["token"]}
ORG = {"name": "org", "rate": "3/minute", "per": ["org"]}


async def test_a_refused_request_takes_nothing_from_the_others(store: Store, clock: ManualClock) -> None:
    """Token 5/min, organization 3/min, ten requests: the organization's counter says 3, and so does the token's."""
    limiter = limiter_of(store, clock, TOKEN, ORG)
    allowed = [(await limiter.check(ALICE)).allowed for _ in range(10)]
    assert allowed == [True] * 3 + [False] * 7
    assert [one.remaining for one in (await limiter.peek(ALICE)).limits] == [5 - 3, 3 - 3]


async def test_a_refusal_by_any_of_five_leaves_the_other_four(store: Store, clock: ManualClock) -> None:
    """Whichever of several limits is full, the others keep their units."""
    for full in range(5):
        limits = [{"name": f"p{full}{i}", "rate": "1/minute" if i == full else "9/minute"} for i in range(5)]
        limiter = limiter_of(store, clock, *limits)
        await limiter.check(ALICE)
        refused = await limiter.check(ALICE)
        assert [one.remaining for one in refused.limits] == [0 if i == full else 8 for i in range(5)]
        assert [one.policy for one in refused.violated] == [f"p{full}{full}"]


async def test_peek_charges_nothing(store: Store, clock: ManualClock) -> None:
    """`peek` tells what one more request would get, and leaves everything as it stands."""
    limiter = limiter_of(store, clock, TOKEN)
    for _ in range(10):
        seen = await limiter.peek(ALICE)
        assert (seen.allowed, seen.limits[0].remaining) == (True, 5)
    await limiter.check(ALICE, cost=5)
    seen = await limiter.peek(ALICE)
    assert (seen.allowed, seen.limits[0].remaining, seen.retry_after) == (False, 0, 60.001)


async def test_cost_is_taken_whole_or_not_at_all(store: Store, clock: ManualClock) -> None:
    """A cost that does not fit leaves what is there for smaller ones."""
    limiter = limiter_of(store, clock, TOKEN)
    assert (await limiter.check(ALICE, cost=3)).limits[0].remaining == 2
    refused = await limiter.check(ALICE, cost=3)
    assert (refused.allowed, refused.limits[0].remaining) == (False, 2)
    assert (await limiter.check(ALICE, cost=2)).allowed
    assert (await limiter.check(ALICE, cost=6)).retry_after == math.inf


@pytest.mark.parametrize("cost", [0, -1, 1.5, True, "1", None, 10**15])
async def test_a_wrong_cost_is_refused(store: Store, clock: ManualClock, cost: Any) -> None:
    """What is no positive integer is an error that names it."""
    with pytest.raises(ConfigurationError, match=r"^cost: "):
        await limiter_of(store, clock, TOKEN).check(ALICE, cost=cost)


async def test_shadow_counts_reports_and_refuses_nobody(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A shadow policy is in the decision and in the log, charged on its own verdict only."""
    limiter = limiter_of(store, clock, {**TOKEN, "rate": "2/minute", "shadow": True}, {**ORG, "rate": "9/minute"})
    with caplog.at_level(logging.INFO, "ratelimit"):
        told = [await limiter.check(ALICE) for _ in range(4)]
    assert [decision.allowed for decision in told] == [True] * 4
    assert [decision.limits[0].remaining for decision in told] == [1, 0, 0, 0]
    assert [decision.limits[0].retry_after > 0 for decision in told] == [False, False, True, True]
    assert all(decision.binding == decision.limits[1] for decision in told)
    assert len(caplog.messages) == 2


async def test_a_request_that_others_refuse_costs_a_shadow_nothing(store: Store, clock: ManualClock) -> None:
    """Shadows show what they would do if they enforced: they see admitted requests only."""
    limiter = limiter_of(store, clock, {**TOKEN, "shadow": True}, {**ORG, "rate": "1/minute"})
    for _ in range(5):
        decision = await limiter.check(ALICE)
    assert [one.remaining for one in decision.limits] == [4, 0]


async def test_endpoints_and_methods_choose_policies(store: Store, clock: ManualClock) -> None:
    """`method` and `endpoint` decide what is charged; an exempt endpoint has no limits to tell."""
    settings = {
        "limits": [{**TOKEN, "methods": ["POST"], "paths": ["/v1/*"]}],
        "exempt": ["POST /v1/free"],
    }
    limiter = Limiter(RateLimitSettings.model_validate(settings), store, clock)
    assert [one.policy for one in (await limiter.check(ALICE, method="post", endpoint="/v1/a")).limits] == ["token"]
    for method, endpoint in (("GET", "/v1/a"), ("POST", "/v2/a"), ("POST", "/v1/free"), ("POST", "*")):
        decision = await limiter.check(ALICE, method=method, endpoint=endpoint)
        assert (decision.allowed, decision.limits, decision.binding) == (True, (), None)


async def test_burst_is_taken_off_the_next_window(store: Store, clock: ManualClock) -> None:
    """10/minute with half as burst: 15 at once, then 10 a window while nobody rests, and 15 again after a quiet time."""
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
    """Above the nominal limit `remaining` is 0, yet nothing is exhausted until the burst is spent too."""
    limiter = limiter_of(store, clock, {**TOKEN, "rate": "2/minute", "burst": 0.5})
    told = [(await limiter.check(ALICE)).limits[0] for _ in range(4)]
    assert [one.remaining for one in told] == [1, 0, 0, 0]
    assert [one.exhausted for one in told] == [False, False, True, True]
    assert [one.retry_after > 0 for one in told] == [False, False, False, True]
    assert all(one.reset_at == clock() / 1e6 + one.reset_after and one.reset_after == 60.001 for one in told)


async def test_parallel_checks_count_exactly(store: Store, clock: ManualClock) -> None:
    """Of 300 checks at the same moment, exactly the limit is admitted."""
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
    """`async with` gives connections back, also of what was asked at the last moment; closing twice is allowed."""
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
