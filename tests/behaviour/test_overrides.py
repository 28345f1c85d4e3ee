"""The promise: an override that is set while the app runs holds in every worker within two seconds."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from ratelimit import (
    Concurrency,
    ConfigurationError,
    Hours,
    Identity,
    Limit,
    Limiter,
    MemoryStore,
    Override,
    Quota,
    Rate,
    RateLimitSettings,
    RedisStore,
    StoreError,
)
from ratelimit.limiter import POLL_INTERVAL
from ratelimit.resolver.keys import KeyBuilder
from ratelimit.stores.base import Store
from ratelimit.stores.messages import SharedMap
from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds
from tests.support.uvicorn_server import uvicorn
from tests.support.virtual_time import VirtualLoop, virtually
from tests.support.waiting import until

SETTINGS = RateLimitSettings(
    limits=[
        Limit(name="token", rate="2/minute", per="token", plans={"big": "5/minute"}),
        Limit(name="pair", rate="1/minute", per=["org", "ip"]),
        Limit(name="all", rate="1000/minute"),
    ],
    quotas=[Quota(name="month", limit=3, period="month", per="org")],
    concurrency=[Concurrency(name="runs", limit=1, per="org")],
)
WHO = Identity(token="secret-token")
HASH = KeyBuilder().hashed("secret-token")


async def limit_of(limiter: Limiter, identity: Identity = WHO, policy: str = "token") -> int:
    """Return the limit of a policy that holds for this identity."""
    decision = await limiter.peek(identity)
    return next(limit.limit for limit in decision.limits if limit.policy == policy)


async def test_an_override_holds_at_once_where_it_was_set(store: Store, clock: ManualClock) -> None:
    """A refused token is admitted up to its new limit; when the override is deleted, the old limit holds again."""
    limiter = Limiter(SETTINGS, store, clock)
    assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True, True, False]
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="4/minute")
    assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True, True, False]
    assert await limit_of(limiter, Identity(token="other")) == 2
    assert await limiter.overrides.delete(policy="token", key={"token": "secret-token"})
    assert await limit_of(limiter) == 2
    assert not await limiter.overrides.delete(policy="token", key={"token": "secret-token"})


async def test_an_override_holds_for_a_plan_or_for_all_callers(store: Store, clock: ManualClock) -> None:
    """That of one caller wins over that of its plan, and this over that of all; each falls back to the next."""
    limiter = Limiter(SETTINGS, store, clock)
    big, small = Identity(token="secret-token", plan="big"), Identity(token="other")
    set_, delete = limiter.overrides.set, limiter.overrides.delete
    await set_(policy="token", key={}, rate="7/minute", why="incident 12", by="ada")
    await set_(policy="token", plan="big", rate="8/minute")
    await set_(policy="token", key={"token": "secret-token"}, rate="9/minute")
    assert [await limit_of(limiter, each) for each in (big, Identity(token="x", plan="big"), small)] == [9, 8, 7]
    assert await limiter.overrides.list() == [
        Override(policy="token", key={}, rate=Rate(7, 60), why="incident 12", by="ada"),
        Override(policy="token", key={"token_hash": HASH}, rate=Rate(9, 60)),
        Override(policy="token", key={}, plan="big", rate=Rate(8, 60)),
    ]
    assert await delete(policy="token", key={"token": "secret-token"})
    assert await limit_of(limiter, big) == 8
    assert await delete(policy="token", plan="big")
    assert await limit_of(limiter, big) == 7
    assert await delete(policy="token", key={})
    assert [await limit_of(limiter, each) for each in (big, small)] == [5, 2]


async def test_an_ended_override_gives_way_to_the_wider_one(store: Store, clock: ManualClock) -> None:
    """Of the plan, then of all callers."""
    limiter = Limiter(SETTINGS, store, clock)
    soon = in_seconds(clock, 60)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute", until=soon)
    await limiter.overrides.set(policy="token", key={}, rate="7/minute")
    clock.advance(seconds=61)
    assert await limit_of(limiter) == 7


async def test_unlimited_lifts_a_policy(store: Store, clock: ManualClock) -> None:
    """A rate, a quota and a concurrency; the other policies hold as before."""
    limiter = Limiter(SETTINGS, store, clock)
    who = Identity(token="secret-token", org="o")
    assert {limit.policy for limit in (await limiter.peek(who)).limits} == {"token", "all", "month", "runs"}
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="unlimited")
    await limiter.overrides.set(policy="month", key={"org": "o"}, rate="unlimited")
    await limiter.overrides.set(policy="runs", key={}, rate="unlimited")
    assert {limit.policy for limit in (await limiter.peek(who)).limits} == {"all"}
    assert [(await limiter.check(who)).allowed for _ in range(5)] == [True] * 5
    assert {override.rate for override in await limiter.overrides.list()} == {None}


async def test_overrides_of_every_kind_are_listed(store: Store, clock: ManualClock) -> None:
    """A token is listed as its hash, which may be given instead of it; rates belong to limits, numbers to the others."""
    limiter = Limiter(SETTINGS, store, clock)
    until = datetime(2023, 12, 1, tzinfo=UTC)
    set_ = limiter.overrides.set
    await set_(policy="token", key={"token": "secret-token"}, rate=Rate(9, 1), until=until)
    await set_(policy="pair", key={"org": "a:b", "ip": "::1"}, rate=7)
    await set_(policy="all", key={}, rate="0/minute")
    await set_(policy="month", key={"org": "acme"}, rate=10**15 - 1)
    await set_(policy="runs", key={"org": "acme"}, rate=0)
    assert await limiter.overrides.list() == [
        Override(policy="all", key={}, rate=Rate(0, 60)),
        Override(policy="month", key={"org": "acme"}, rate=10**15 - 1),
        Override(policy="pair", key={"org": "a:b", "ip": "::1"}, rate=Rate(7, 60)),
        Override(policy="runs", key={"org": "acme"}, rate=0),
        Override(policy="token", key={"token_hash": HASH}, rate=Rate(9, 1), until=until),
    ]
    assert await limit_of(limiter, Identity(org="a:b", ip="::1"), "pair") == 7
    assert await limit_of(limiter, Identity(org="acme"), "month") == 10**15 - 1
    assert (await limiter.check(Identity(org="acme"))).violated[-1].policy == "runs"
    assert await limiter.overrides.delete(policy="token", key={"token_hash": HASH})
    assert await limit_of(limiter) == 2


async def test_an_override_ends_at_its_until(store: Store, clock: ManualClock) -> None:
    """From `until` on, to the microsecond, the settings hold again; the next change removes the override."""
    limiter = Limiter(SETTINGS, store, clock)
    until = in_seconds(clock, 300)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute", until=until)
    clock.advance(seconds=300)
    clock.now -= 1
    assert await limit_of(limiter) == 9
    clock.now += 1
    assert await limit_of(limiter) == 2
    assert await limiter.overrides.list() == []
    await limiter.overrides.set(policy="all", key={}, rate="9/minute")
    stored = await store.read_map("rl:{overrides}", -1)
    assert stored is not None
    assert list(stored.values) == ["all:*"]


async def test_the_precedence_of_rates(store: Store, clock: ManualClock) -> None:
    """The first of grant, override, schedule, plan and the policy's own rate holds."""
    hours = Hours(start="00:00", end="24:00", rate="30/minute")
    plain = Limit(name="plain", rate="10/minute", per="org", plans={"big": "20/minute"})
    timed = Limit(name="timed", rate="10/minute", per="org", plans={"big": "20/minute"}, schedule=[hours])
    limiter = Limiter(RateLimitSettings(limits=[plain, timed]), store, clock)

    async def limits(**who: Any) -> list[int]:
        return [limit.limit for limit in (await limiter.peek(Identity(org="o", **who))).limits]

    assert await limits() == [10, 30]
    assert await limits(plan="big") == [20, 30]
    for name in ("plain", "timed"):
        await limiter.overrides.set(policy=name, key={"org": "o"}, rate="40/minute")
    assert await limits(plan="big") == [40, 40]
    assert await limits(plan="big", rates={"plain": "50/minute", "timed": 60}) == [50, 60]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"policy": "none"}, "policy: 'none' is not one of all, month, pair, runs, token"),
        ({"key": {"org": "o"}}, "key: 'token' is counted by token, got org"),
        ({"key": None}, "key: say who"),
        ({"key": {"token": "t", "org": "o"}}, "is counted by token, got token, org"),
        ({"key": {"token": "t", "token_hash": "h"}}, "got token, token_hash"),
        ({"key": {"token_hash": ""}}, "key: a value is empty"),
        ({"rate": "ten"}, "'ten' is not a rate"),
        ({"rate": -1}, "must be between 0"),
        ({"rate": True}, "rate: 'token' needs a rate or a whole number, got True"),
        ({"rate": None}, "rate: 'token' needs a rate or a whole number, got None"),
        ({"policy": "month", "key": {"org": "o"}, "rate": "9/minute"}, "rate: 'month' needs a whole number"),
        ({"policy": "month", "key": {"org": ""}, "rate": 5}, "key: a value is empty"),
        ({"until": "2027-01-01"}, "until: '2027-01-01' is not an instant: write datetime"),
        ({"until": datetime.max.replace(tzinfo=UTC)}, "is past or too far away"),
        ({"until": datetime(2030, 1, 1)}, "is not an instant: write datetime"),  # noqa: DTZ001 - that is the mistake
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, "until: 2020-01-01T00:00:00\\+00:00 is past or too far"),
    ],
)
async def test_an_invalid_override_raises(
    store: Store, clock: ManualClock, wrong: dict[str, Any], message: str
) -> None:
    """The error names the wrong field, and nothing is written."""
    limiter = Limiter(SETTINGS, store, clock)
    good: dict[str, Any] = {"policy": "token", "key": {"token": "t"}, "rate": "9/minute"}
    with pytest.raises(ConfigurationError, match=message):
        await limiter.overrides.set(**{**good, **wrong})
    assert await limiter.overrides.list() == []


async def test_an_unreadable_override_has_no_effect(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An entry that cannot be read is logged once, and the other overrides hold."""
    limiter = Limiter(SETTINGS, store, clock)
    await store.put_entry("rl:{overrides}", "token:x", b"\xc1garbage")
    await store.put_entry("rl:{overrides}", "token:y", json.dumps({"policy": "token"}).encode())
    await limiter.overrides.set(policy="all", key={}, rate="9/minute")
    assert [override.policy for override in await limiter.overrides.list()] == ["all"]
    assert caplog.messages.count("override 'token:x' cannot be read and has no effect [RL508]") == 1


async def poll(limiter: Limiter) -> None:
    """Do at once what the limiter would do after its interval."""
    (next_poll,) = limiter.poller.next_polls
    assert next_poll - asyncio.get_running_loop().time() <= POLL_INTERVAL
    await limiter.poller.poll()


async def test_another_worker_polls_in_the_background(redis_url: str, clock: ManualClock) -> None:
    """A second limiter applies a change without a request."""
    stores = [RedisStore(redis_url, clock=clock, timeout=10) for _ in range(2)]
    async with Limiter(SETTINGS, stores[0], clock) as here, Limiter(SETTINGS, stores[1], clock) as there:
        await here.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute")
        assert await limit_of(there) == 2
        await poll(there)
        assert await limit_of(there) == 9


async def test_a_map_that_was_emptied_between_two_polls_is_read_again(redis_url: str, clock: ManualClock) -> None:
    """After FLUSHALL, as many changes as before are not mistaken for no change."""
    stores = [RedisStore(redis_url, clock=clock, timeout=10) for _ in range(2)]
    async with Limiter(SETTINGS, stores[0], clock) as here, Limiter(SETTINGS, stores[1], clock) as there:
        for rate in ("9/minute", "7/minute"):
            await here.overrides.set(policy="token", key={"token": "secret-token"}, rate=rate)
            await poll(there)
            assert await limit_of(there) == int(rate[0])
            await stores[0].client.run("FLUSHALL")


async def test_overrides_are_read_page_by_page(redis_url: str, clock: ManualClock) -> None:
    """Five thousand overrides are read in pages, of which each has the timeout of a call."""
    store = RedisStore(redis_url, clock=clock, timeout=10)
    async with Limiter(SETTINGS, store, clock) as limiter:
        entry = json.dumps({"policy": "month", "key": {"org": "x"}, "rate": 5, "until": None})
        fields = [text for n in range(5000) for text in (f"month:o{n}", entry)]
        await store.client.run("HSET", "rl:{overrides}", "#version", "77", *fields)
        await limiter.overrides.refresh()
        assert len(limiter.overrides) == 5000
        assert await limit_of(limiter, Identity(org="o4999"), "month") == 5


async def test_a_first_request_that_is_cancelled_does_not_end_the_polling(redis_url: str, clock: ManualClock) -> None:
    """If the first request is cancelled, the worker still polls for changes."""
    limiter = Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock)
    first = asyncio.create_task(limiter.check(WHO))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock) as other:
        await other.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute")
    await poll(limiter)
    assert await limit_of(limiter) == 9
    await limiter.aclose()


class CountingStore(MemoryStore):
    """A store that counts the reads of shared maps."""

    reads = 0

    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        self.reads += 1
        return await super().read_map(name, seen)


def test_starting_again_polls_no_more_often() -> None:
    """However often a limiter is closed and started, it polls once in each interval, and not while it is closed."""

    async def reads_in_ten_seconds(loop: VirtualLoop) -> list[int]:
        store = CountingStore(clock=loop.clock)
        limiter, found = Limiter(SETTINGS, store, loop.clock), []
        for start in (True, False):
            for _ in range(5):
                await limiter.start()
                assert len(limiter.poller.next_polls) == 1
                await limiter.aclose()
            if start:
                await limiter.start()
            await asyncio.sleep(0.5)
            before = store.reads
            await asyncio.sleep(10)
            found.append(store.reads - before)
        return found

    assert virtually(reads_in_ten_seconds) == [10, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token:x", {"policy": ["token"], "key": {}, "rate": 5, "until": None}),
        ("token:x", {"policy": "token", "key": [], "rate": 5, "until": None}),
        ("token:x", {"policy": "token", "key": {}, "rate": [1, 2, 3], "until": None}),
        ("token:x", {"policy": "token", "key": {}, "rate": 5, "until": 2**62}),
        ("token:\udcff", {"policy": "token", "key": {}, "rate": [5, 60], "until": None}),
        ("token:x", {"policy": "token", "key": {}, "rate": float("nan"), "until": None}),
        ("token:x", {"policy": "token", "key": {}, "rate": 5, "until": float("inf")}),
        ("token:x", [1, 2]),
        ("token:x", b"[" * 100_000),
    ],
)
async def test_a_foreign_entry_has_no_effect(redis_url: str, clock: ManualClock, name: str, value: Any) -> None:
    """Whatever another program writes into the map, requests are decided and the polling goes on."""
    store = RedisStore(redis_url, clock=clock, timeout=10)
    limiter = Limiter(SETTINGS, store, clock)
    entry = value if isinstance(value, bytes) else json.dumps(value)
    field = name.encode("utf-8", "surrogateescape")
    await store.client.run("HSET", "rl:{overrides}", field, entry, "#version", "odd")
    assert await limit_of(limiter) == 2
    await poll(limiter)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute")
    assert await limit_of(limiter) == 9
    await limiter.aclose()


async def test_an_unavailable_store_raises_for_overrides_and_not_for_requests(clock: ManualClock) -> None:
    """The methods of `overrides` raise; requests are decided by the overrides that are known."""

    class UnavailableStore(MemoryStore):
        async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
            raise StoreError("unavailable")

    limiter = Limiter(SETTINGS, UnavailableStore(clock=clock), clock)
    assert await limit_of(limiter) == 2
    with pytest.raises(StoreError):
        await limiter.overrides.list()


def test_a_refused_token_is_raised_in_another_process(redis_url: str) -> None:
    """An override that this process sets holds in another one, without a restart and while the token is refused.

    Workers poll once a second, which leaves a second for the rest; on a busy machine it may take longer.
    """
    assert POLL_INTERVAL <= 1
    settings = {
        "store": redis_url,
        "store_timeout": 10,
        "limits": [{"name": "token", "rate": "1/hour", "per": "token"}],
    }
    with uvicorn(settings) as url:
        statuses = [httpx2.get(url, headers={"x-token": "secret-token"}).status_code for _ in range(2)]
        assert statuses == [200, 429]
        asyncio.run(_raise(settings))
        until(
            lambda: httpx2.get(url, headers={"x-token": "secret-token"}).status_code == 200, "the override is not known"
        )
        assert httpx2.get(url, headers={"x-token": "another-token"}).status_code == 200
        assert httpx2.get(url, headers={"x-token": "another-token"}).status_code == 429


async def _raise(settings: dict[str, Any]) -> None:
    async with Limiter(RateLimitSettings.model_validate(settings)) as limiter:
        await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="1000/hour")


async def test_all_first_requests_wait_for_the_overrides(redis_url: str, clock: ManualClock) -> None:
    """Of the parallel first requests of a worker, none is decided before the overrides are known."""
    async with Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock) as other:
        await other.overrides.set(policy="token", key={"token": "secret-token"}, rate="1/minute")
    limiter = Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock)
    decisions = await asyncio.gather(*(limiter.check(WHO) for _ in range(6)))
    assert [decision.allowed for decision in decisions].count(True) == 1
    await limiter.aclose()


async def test_a_slow_poll_does_not_undo_a_newer_one(clock: ManualClock) -> None:
    """Overrides that were read before a change do not replace those that were read after it."""

    class SlowStore(MemoryStore):
        gate: asyncio.Event | None = None

        async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
            found, gate = await super().read_map(name, seen), self.gate
            self.gate = None
            if gate is not None:
                await gate.wait()
            return found

    store = SlowStore(clock=clock)
    limiter = Limiter(SETTINGS, store, clock)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="7/minute")
    gate = store.gate = asyncio.Event()
    slow = asyncio.create_task(limiter.overrides.refresh(force=True))
    await asyncio.sleep(0)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute")
    gate.set()
    await slow
    assert await limit_of(limiter) == 9


def test_closed_event_loops_are_forgotten(clock: ManualClock) -> None:
    """A limiter that is used from one event loop after the other refers to the last one alone."""
    limiter = Limiter(SETTINGS, MemoryStore(clock=clock), clock)
    for _ in range(5):
        asyncio.run(limit_of(limiter))
    assert len(limiter.poller.next_polls) == 1
