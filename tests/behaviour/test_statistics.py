"""The promise: statistics of all workers, minute by minute, that cost a request no call to the store."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitSettings, StoreError
from ratelimit.config.settings import StatisticsSettings
from ratelimit.enforcement.statistics import PolicyCounts
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.redis_server import RedisServer

LIMITS = [
    Limit(name="token", rate="5/minute", per="token"),
    Limit(name="shadow", rate="2/minute", per="token", shadow=True),
]
SETTINGS = RateLimitSettings(limits=LIMITS, statistics=True)
WHO = Identity(token="secret-token", org="secret-org", ip="192.0.2.1")


async def counts_of(limiter: Limiter, last: int = 2) -> list[dict[str, PolicyCounts]]:
    assert limiter.statistics is not None
    return [dict(span.policies) for span in await limiter.statistics.minutes(last)]


async def test_workers_count_together(store: Store, clock: ManualClock) -> None:
    """Each minute by itself, and hours beside; the shadow is seen too."""
    one, other = Limiter(SETTINGS, store, clock), Limiter(SETTINGS, store, clock)
    for _ in range(4):
        await one.check(WHO)
        await other.check(WHO)
    assert one.statistics is not None
    assert other.statistics is not None
    await other.statistics.flush()
    token = PolicyCounts(within=3, near=2, over=3, charged=5)
    shadow = PolicyCounts(within=1, near=1, shadow_over=6, charged=2)
    before, now = await counts_of(one)
    if not isinstance(store, MemoryStore):  # A refusal from memory says nothing of the shadow.
        shadow = replace(shadow, shadow_over=5)
    assert (before, now) == ({}, {"token": token, "shadow": shadow})
    assert token.checks == 8
    clock.advance(seconds=60)
    await one.check(Identity(token="u"))
    assert await counts_of(one, 3) == [
        {},
        {"token": token, "shadow": shadow},
        {"token": PolicyCounts(within=1, charged=1), "shadow": PolicyCounts(within=1, charged=1)},
    ]
    (hour,) = await one.statistics.hours(1)
    assert hour.policies["token"].checks == 9
    assert hour.start == datetime.fromtimestamp(clock() // 1_000_000 // 3600 * 3600, UTC)


async def test_they_are_kept_as_long_as_the_settings_say(store: Store, clock: ManualClock) -> None:
    """And no longer."""
    kept = StatisticsSettings(minutes_kept=120, hours_kept=7200)
    limiter = Limiter(SETTINGS.model_copy(update={"statistics": kept}), store, clock)
    await limiter.check(WHO)
    assert [bool(each) for each in await counts_of(limiter, 1)] == [True]
    if isinstance(store, MemoryStore):
        clock.advance(seconds=121)
        assert [bool(each) for each in await counts_of(limiter, 4)] == [False] * 4


async def test_a_request_makes_no_call_for_them(redis_server: RedisServer, redis_url: str, clock: ManualClock) -> None:
    """One script call writes what hundreds of requests have counted, and nothing in the store names a caller."""
    settings = SETTINGS.model_copy(update={"store": redis_url})

    def calls() -> dict[str, int]:
        with redis_server.client() as client:
            stats: Any = client.info("commandstats")
        return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "hincrby", "pexpire")}

    limiter = Limiter(settings, clock=clock)
    await limiter.check(WHO)
    assert limiter.statistics is not None
    await limiter.statistics.flush()
    before = calls()
    for _ in range(300):
        await limiter.check(WHO)
    # In the background they are written every second or so.
    assert calls()["hincrby"] - before["hincrby"] < 150
    await limiter.statistics.flush()
    await limiter.statistics.flush()
    after = calls()
    assert after["hincrby"] > before["hincrby"]
    assert after["pexpire"] - before["pexpire"] >= 2, "one hash for the minute, and one for the hour"
    with redis_server.client() as client:
        found = b" ".join(
            [*client.keys("*statistics*"), *(str(client.hgetall(key)).encode() for key in client.keys("*statistics*"))]
        )
        assert all(client.pttl(key) > 0 for key in client.keys("*statistics*"))
    assert b"secret" not in found
    await limiter.aclose()


async def test_what_could_not_be_written_comes_with_the_next(clock: ManualClock) -> None:
    """Nothing is lost by an outage."""

    class Away(MemoryStore):
        is_down = True

        async def add_counts(self, spans: Any, counts: Any) -> None:
            if self.is_down:
                raise StoreError("down")
            await super().add_counts(spans, counts)

    store = Away(clock=clock)
    limiter = Limiter(SETTINGS, store, clock)
    await limiter.check(WHO)
    assert limiter.statistics is not None
    with pytest.raises(StoreError):
        await limiter.statistics.flush()
    store.is_down = False
    await limiter.check(WHO)
    assert (await counts_of(limiter, 1))[0]["token"].checks == 2


async def test_a_forked_worker_leaves_them_to_its_parent(clock: ManualClock) -> None:
    """What both know would count twice."""
    store = MemoryStore(clock=clock)
    limiter = Limiter(SETTINGS, store, clock)
    await limiter.check(WHO)
    assert limiter.statistics is not None
    limiter.statistics.leave_to_parent()
    assert await counts_of(limiter, 1) == [{}]


def test_they_are_off_by_default_and_their_settings_are_checked() -> None:
    """`True` is the usual retention."""
    assert Limiter(RateLimitSettings(), MemoryStore()).statistics is None
    assert SETTINGS.statistics == StatisticsSettings()
    assert RateLimitSettings(statistics=False).statistics is None
    with pytest.raises(ValidationError, match="statistics.minutes_kept"):
        RateLimitSettings.model_validate({"statistics": {"minutes_kept": 5}})


async def test_calls_that_overlap_count_once(clock: ManualClock) -> None:
    """A page may read minutes and hours at the same time, while the limiter writes too."""

    class Slow(MemoryStore):
        async def add_counts(self, spans: Any, counts: Any) -> None:
            await asyncio.sleep(0)
            await super().add_counts(spans, counts)

    limiter = Limiter(SETTINGS, Slow(clock=clock), clock)
    await limiter.check(WHO)
    assert limiter.statistics is not None
    await asyncio.gather(limiter.statistics.minutes(), limiter.statistics.hours(), limiter.statistics.flush())
    assert (await counts_of(limiter, 1))[0]["token"].checks == 1


async def test_hours_of_minutes_are_read_in_order(store: Store, clock: ManualClock) -> None:
    """Each minute stays in its place, and those without a check are empty."""
    limiter = Limiter(SETTINGS, store, clock)
    for _ in range(3):
        await limiter.check(Identity(token="u"))
        await counts_of(limiter, 1)
        clock.advance(seconds=60 * 150)
    minutes = await counts_of(limiter, 451)
    assert [place for place, counts in enumerate(minutes) if counts] == [0, 150, 300]
    await limiter.aclose()
