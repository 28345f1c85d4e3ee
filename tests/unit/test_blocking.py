"""The limiter for code without an event loop, on both stores."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ratelimit import (
    BlockingLimiter,
    Concurrency,
    ConfigurationError,
    Identity,
    Limit,
    Limiter,
    LimitExceeded,
    Quota,
    RateLimitSettings,
)

WHO = Identity(token="t", org="acme")


@pytest.fixture(params=["memory", "redis"])
def limiter(request: pytest.FixtureRequest) -> Iterator[BlockingLimiter]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    settings = RateLimitSettings(
        store=url,
        store_timeout=10,
        limits=[Limit(name="token", rate="5/hour", per="token")],
        quotas=[Quota(name="rows", limit=10, period="year", per="org", manual=True)],
        concurrency=[Concurrency(name="jobs", limit=1, per="org", manual=True)],
    )
    with BlockingLimiter(settings) as made:
        yield made


def test_each_method_waits_for_its_result(limiter: BlockingLimiter) -> None:
    """With the parameters, results and errors of the limiter."""
    assert [limiter.check(WHO, cost=2).allowed for _ in range(3)] == [True, True, False]
    assert limiter.check(WHO, cost=4, at_most=True).granted == 1
    assert not limiter.peek(WHO).allowed
    assert [each.remaining for each in limiter.limits(WHO)] == [0]
    assert limiter.consume("rows", WHO, 3).allowed
    limiter.release("rows", WHO, 1)
    assert limiter.usage(WHO)[0].used == 2
    with pytest.raises(ConfigurationError, match="cost"):
        limiter.check(WHO, cost=-1)


def test_threads_share_what_is_left(limiter: BlockingLimiter) -> None:
    """Whichever is faster."""
    allowed = list[bool]()
    threads = [threading.Thread(target=lambda: allowed.append(limiter.check(WHO).allowed)) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(allowed) == [False] * 4 + [True] * 5


def test_a_slot_is_held_for_a_with_block(limiter: BlockingLimiter) -> None:
    """And free afterwards, also where the block fails."""
    with limiter.slot("jobs", WHO) as decision:
        assert decision.allowed
        with pytest.raises(LimitExceeded), limiter.slot("jobs", WHO):
            pytest.fail("no permit is free")
    with pytest.raises(ZeroDivisionError), limiter.slot("jobs", WHO):
        raise ZeroDivisionError
    with limiter.slot("jobs", WHO):
        pass


def test_overrides_and_blocks_need_no_await(limiter: BlockingLimiter) -> None:
    """As all its methods; a coroutine of the limiter itself is for `run`."""
    limiter.overrides.set(policy="token", key={"token": "t"}, rate="1/hour")
    assert [limiter.check(WHO).allowed for _ in range(2)] == [True, False]
    assert len(limiter.overrides.list()) == 1
    assert limiter.overrides.delete(policy="token", key={"token": "t"})
    limiter.block({"token": "t"})
    assert (limiter.check(WHO).status, len(limiter.blocks.list())) == (403, 1)
    assert limiter.blocks.delete({"token": "t"})
    limiter.blocks.set({"token": "t"})
    assert limiter.run(limiter.limiter.blocks.delete({"token": "t"}))


def test_a_decision_is_settled_without_await(limiter: BlockingLimiter) -> None:
    """To what was really used."""
    decision = limiter.check(WHO)
    limiter.settle(decision, {"requests": 0})
    assert limiter.limits(WHO)[0].remaining == limiter.limits(WHO)[0].limit


async def test_in_an_event_loop_it_refuses_to_block() -> None:
    """There is `Limiter` for that."""
    blocking = BlockingLimiter(RateLimitSettings())
    with pytest.raises(ConfigurationError, match="would block the running event loop"):
        blocking.check(WHO)


def test_it_has_the_face_of_the_limiter() -> None:
    """Every public coroutine of `Limiter` is there, but that for WebSockets."""
    names = {name for name in vars(Limiter) if not name.startswith("_")}
    other: set[Any] = {"message", "decide", "is_started", "aclose", "blocked"}
    assert names - other <= set(dir(BlockingLimiter))
    assert BlockingLimiter.check.__doc__ == Limiter.check.__doc__
