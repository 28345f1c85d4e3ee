"""The quota directory knows who has used a quota, and under which limit, in this period and the one before."""

from datetime import UTC, datetime

from ratelimit import Identity, Limiter, Quota, RateLimitSettings
from ratelimit.enforcement.quota_directory import QuotaDirectory
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

SETTINGS = RateLimitSettings(
    statistics=True,
    quotas=[
        Quota(name="calls", limit=100, plans={"pro": 1000}, per="org", period="month"),
        Quota(name="stored", limit=5, per="org", period=None),
    ],
)


def directory_of(limiter: Limiter) -> QuotaDirectory:
    assert limiter.statistics is not None
    return limiter.statistics.quotas


async def test_callers_of_all_workers_are_known_with_their_limits(store: Store, clock: ManualClock) -> None:
    """Those of plans and overrides, as they were charged last; a counter that no caller has used is not there."""
    async with Limiter(SETTINGS, store, clock) as one, Limiter(SETTINGS, store, clock) as other:
        await one.check(Identity(org="acme", plan="pro"))
        await other.check(Identity(org="small"))
        await one.overrides.set(policy="calls", key={"org": "raised"}, rate=777)
        await one.check(Identity(org="raised"))
        for worker in (one, other):
            assert worker.statistics is not None
            await worker.statistics.flush_all()
        found = await directory_of(one).counters("calls", "month")
        assert sorted(found.values()) == [100, 777, 1000]
        assert {key.rpartition(":")[2] for key in found} == {"acme", "small", "raised"}
        assert len(await directory_of(one).counters("stored", None)) == 3


async def test_who_has_used_the_last_period_alone_is_still_known(store: Store, clock: ManualClock) -> None:
    """Until the period after it ends; and a changed limit replaces the one before."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        statistics, quotas = limiter.statistics, directory_of(limiter)
        assert statistics is not None
        await limiter.check(Identity(org="acme"))
        await statistics.flush_all()
        await limiter.check(Identity(org="acme", plan="pro"))
        await statistics.flush_all()
        assert [*(await quotas.counters("calls", "month")).values()] == [1000]
        now = datetime.fromtimestamp(clock() / 1e6, UTC)
        clock.advance(seconds=(32 - now.day) * 86_400)
        assert [*(await quotas.counters("calls", "month")).values()] == [1000]
        clock.advance(seconds=32 * 86_400)
        assert await quotas.counters("calls", "month") == {}


async def test_each_period_knows_its_callers(store: Store, clock: ManualClock) -> None:
    """Also where a day has several."""
    settings = RateLimitSettings(statistics=True, quotas=[Quota(name="calls", limit=9, per="org", period="hour")])
    async with Limiter(settings, store, clock) as limiter:
        statistics = limiter.statistics
        assert statistics is not None
        for _ in range(5):
            await limiter.check(Identity(org="acme"))
            await statistics.flush_all()
            clock.advance(seconds=3600)
        assert len(await directory_of(limiter).counters("calls", "hour")) == 1
        clock.advance(seconds=3600)
        assert len(await directory_of(limiter).counters("calls", "hour")) == 0
