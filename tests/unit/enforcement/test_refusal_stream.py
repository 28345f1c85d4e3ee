"""The stream of refusals: those of all workers, bounded by the second and in all."""

import json

import pytest

from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitSettings, StoreError
from ratelimit.enforcement.refusal_stream import KEPT, PER_SECOND
from ratelimit.enforcement.statistics import Statistics
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

SETTINGS = RateLimitSettings(
    statistics=True,
    limits=[Limit(name="a", rate="1/minute", per="token"), Limit(name="b", rate="2/minute", per="org", shadow=True)],
)


def statistics_of(limiter: Limiter) -> Statistics:
    assert limiter.statistics is not None
    return limiter.statistics


async def test_refusals_of_all_workers_are_read_in_their_order(store: Store, clock: ManualClock) -> None:
    """With caller, place and wait; those of a shadow apart; after the last one seen, the new ones."""
    async with Limiter(SETTINGS, store, clock) as one, Limiter(SETTINGS, store, clock) as other:
        caller = Identity(token="t", org="acme")
        for worker in (one, one, other):
            await worker.check(caller, method="POST", endpoint="/v1/x")
        await one.block({"org": "evil"})
        await one.check(Identity(org="evil"))
        for worker in (one, other):
            await statistics_of(worker).flush_all()
        found = await statistics_of(one).refusals.read()
        assert [(each.policy, each.status, each.shadow, each.method, each.route) for each in found] == [
            ("a", 429, False, "POST", "/v1/x"),
            ("blocked", 403, False, "GET", "*"),
            ("a", 429, False, "POST", "/v1/x"),
        ]
        assert found[0].caller.startswith("token#")
        assert found[0].counter == f"token#{one.resolver.named.hashed('t')}"
        assert (found[0].wait, found[1].wait, found[0].at) == (60.001, None, clock() / 1e6)
        clock.advance(seconds=61)
        for token in ("u", "v", "w"):
            await other.check(Identity(token=token, org="acme"))
        await statistics_of(other).flush_all()
        new = await statistics_of(one).refusals.read(after=found[-1].id)
        assert [(each.policy, each.shadow, each.status) for each in new] == [("b", True, 200)]
        assert "acme" not in json.dumps([each.caller for each in new])


async def test_the_stream_is_bounded(store: Store, clock: ManualClock) -> None:
    """Fifty a second of one worker, and about a thousand in all; garbage is skipped."""
    async with Limiter(SETTINGS, store, clock) as limiter:
        stream = statistics_of(limiter).refusals
        for _ in range(PER_SECOND + 30):
            await limiter.check(Identity(token="t"))
        await stream.flush()
        assert len(await stream.read(last=10_000)) == PER_SECOND
        await store.append_log("rl:{statistics}:refusals", [b"{", b'{"at": 1}', b"[]"], keep=KEPT, seconds=60)
        assert len(await stream.read(last=10_000)) == PER_SECOND
        for _ in range(40):
            clock.advance(seconds=1)
            for _ in range(PER_SECOND):
                await limiter.check(Identity(token="t"))
            await stream.flush()
        assert KEPT <= len(await stream.read(last=10_000)) <= KEPT + 150


async def test_an_outage_does_not_fill_the_memory(clock: ManualClock) -> None:
    """What cannot be written is lost; so is what a forked child would append again."""

    class Down(MemoryStore):
        async def append_log(self, *_: object, **__: object) -> None:
            raise StoreError("down")

        async def add_counts(self, *_: object) -> None:
            raise StoreError("down")

    limiter = Limiter(SETTINGS, Down(clock=clock), clock)
    stream = statistics_of(limiter).refusals
    for _ in range(3):
        for _ in range(PER_SECOND):
            await limiter.check(Identity(token="t"))
        clock.advance(seconds=1)
        with pytest.raises(StoreError, match="down"):
            await statistics_of(limiter).flush_all()
    await limiter.check(Identity(token="t"))
    stream.clear()
    await stream.flush()


async def test_top_callers_of_all_workers(store: Store, clock: ManualClock) -> None:
    """By use, by refusals and by how often they were near; over the last hour, and of one policy."""
    settings = RateLimitSettings(
        statistics=True,
        limits=[
            Limit(name="token", rate="10/minute", per="token"),
            Limit(name="place", rate="99/minute", per=["ip", "org"]),
        ],
    )
    async with Limiter(settings, store, clock) as one, Limiter(settings, store, clock) as other:
        for token, times in (("heavy", 13), ("light", 2)):
            for number in range(times):
                worker = (one, other)[number % 2]
                await worker.check(Identity(token=token, org="acme", ip="192.0.2.7"))
        for worker in (one, other):
            await statistics_of(worker).flush_all()
        statistics = statistics_of(one)
        label = f"token#{one.resolver.named.hashed('heavy')}"
        used = await statistics.top("used")
        assert [(each.policy, each.count) for each in used] == [("place", 12), ("token", 10), ("token", 2)]
        assert (used[0].caller, used[1].caller) == ("ip:192.0.2.* org:acme", label)
        assert [(each.caller, each.count) for each in await statistics.top("refused")] == [(label, 3)]
        assert [(each.policy, each.count) for each in await statistics.top("near")] == [("token", 3)]
        assert await statistics.top("refused", policy="place") == []
        assert len(await statistics.top("used", count=1)) == 1
        clock.advance(seconds=3 * 3600)
        assert await statistics.top("refused") == []
        assert len(await statistics.top("refused", seconds=4 * 3600)) == 1
