"""The promise: a limit that is raised while the app runs is felt by every worker within two seconds."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import msgpack
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
from ratelimit.keys import Keys
from ratelimit.overrides import PAUSE
from ratelimit.stores import Notes, Store
from ratelimit.testing import ManualClock
from tests.support.redis_server import pause
from tests.support.uvicorn_server import uvicorn

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
HASH = Keys().hashed("secret-token")


async def limit_of(limiter: Limiter, identity: Identity = WHO, policy: str = "token") -> int:
    decision = await limiter.peek(identity)
    return next(limit.limit for limit in decision.limits if limit.policy == policy)


async def test_an_override_holds_at_once_where_it_was_set(store: Store, clock: ManualClock) -> None:
    """A token that is being refused is served again, up to its new limit; deleted, the old one holds."""
    limiter = Limiter(SETTINGS, store, clock)
    assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True, True, False]
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="4/minute")
    assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True, True, False]
    assert await limit_of(limiter, Identity(token="other")) == 2
    assert await limiter.overrides.delete(policy="token", key={"token": "secret-token"})
    assert await limit_of(limiter) == 2
    assert not await limiter.overrides.delete(policy="token", key={"token": "secret-token"})


async def test_overrides_of_every_kind_are_listed(store: Store, clock: ManualClock) -> None:
    """Tokens as their hash, which may be given instead of the token; rates for limits, numbers for the others."""
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


async def test_an_override_ends(store: Store, clock: ManualClock) -> None:
    """After `until` the settings hold again, to the microsecond, and the next change sweeps it away."""
    limiter = Limiter(SETTINGS, store, clock)
    until = datetime.fromtimestamp(clock.now / 1_000_000, UTC) + timedelta(minutes=5)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute", until=until)
    clock.advance(seconds=300)
    clock.now -= 1
    assert await limit_of(limiter) == 9
    clock.now += 1
    assert await limit_of(limiter) == 2
    assert await limiter.overrides.list() == []
    await limiter.overrides.set(policy="all", key={}, rate="9/minute")
    notes = await store.notes("rl:{overrides}", -1)
    assert notes is not None
    assert list(notes.values) == ["all:*"]


async def test_which_rate_counts(store: Store, clock: ManualClock) -> None:
    """Grant, override, schedule, plan, rate: the first that speaks."""
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
        ({"key": {}}, "key: 'token' is counted by token, got nothing"),
        ({"key": {"token": "t", "org": "o"}}, "is counted by token, got token, org"),
        ({"key": {"token": "t", "token_hash": "h"}}, "got token, token_hash"),
        ({"key": {"token_hash": ""}}, "key: a value is empty"),
        ({"rate": "ten"}, "'ten' is not a rate"),
        ({"rate": -1}, "must be between 0"),
        ({"rate": True}, "rate: 'token' needs a rate or a whole number, got True"),
        ({"rate": None}, "rate: 'token' needs a rate or a whole number, got None"),
        ({"policy": "month", "key": {"org": "o"}, "rate": "9/minute"}, "rate: 'month' needs a whole number"),
        ({"policy": "month", "key": {"org": ""}, "rate": 5}, "key: a value is empty"),
        ({"until": "2027-01-01"}, "until: '2027-01-01' is no moment"),
        ({"until": datetime.max.replace(tzinfo=UTC)}, "is over or too far away"),
        ({"until": datetime(2030, 1, 1)}, "is no moment; write datetime"),  # noqa: DTZ001 - it is what is wrong with it
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, "until: 2020-01-01T00:00:00.00:00 is over or too far"),
    ],
)
async def test_what_is_no_override(store: Store, clock: ManualClock, wrong: dict[str, Any], message: str) -> None:
    """It is said, by its field, and nothing is written."""
    limiter = Limiter(SETTINGS, store, clock)
    good: dict[str, Any] = {"policy": "token", "key": {"token": "t"}, "rate": "9/minute"}
    with pytest.raises(ConfigurationError, match=message):
        await limiter.overrides.set(**{**good, **wrong})
    assert await limiter.overrides.list() == []


async def test_what_cannot_be_read_has_no_effect(
    store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Garbage under our key is logged, and the others hold."""
    limiter = Limiter(SETTINGS, store, clock)
    await store.note("rl:{overrides}", "token:x", b"\xc1garbage")
    await store.note("rl:{overrides}", "token:y", msgpack.packb({"policy": "token"}))
    await limiter.overrides.set(policy="all", key={}, rate="9/minute")
    assert [override.policy for override in await limiter.overrides.list()] == ["all"]
    assert caplog.messages.count("override 'token:x' cannot be read and has no effect") == 1


async def look(limiter: Limiter) -> None:
    """Do what the timer of a limiter does after each pause."""
    (timer,) = limiter.overrides._timers.values()
    assert timer.when() - asyncio.get_running_loop().time() <= PAUSE
    timer.cancel()
    await limiter.overrides._begin(asyncio.get_running_loop())


async def test_another_worker_feels_it_in_the_background(redis_url: str, clock: ManualClock) -> None:
    """A second limiter that nobody asks anything hears of a change by itself."""
    stores = [RedisStore(redis_url, clock=clock, timeout=10) for _ in range(2)]
    async with Limiter(SETTINGS, stores[0], clock) as here, Limiter(SETTINGS, stores[1], clock) as there:
        await here.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute")
        assert await limit_of(there) == 2
        await look(there)
        assert await limit_of(there) == 9


async def test_a_book_that_was_emptied_between_two_looks_is_read_anew(redis_url: str, clock: ManualClock) -> None:
    """FLUSHALL and as many changes as before are not mistaken for no change."""
    stores = [RedisStore(redis_url, clock=clock, timeout=10) for _ in range(2)]
    async with Limiter(SETTINGS, stores[0], clock) as here, Limiter(SETTINGS, stores[1], clock) as there:
        for rate in ("9/minute", "7/minute"):
            await here.overrides.set(policy="token", key={"token": "secret-token"}, rate=rate)
            await look(there)
            assert await limit_of(there) == int(rate[0])
            await stores[0]._lane().run("FLUSHALL")


async def test_a_thousand_pages_of_overrides(redis_url: str, clock: ManualClock) -> None:
    """They are read page by page, each in the time that a call may take."""
    async with Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock) as limiter:
        lane = limiter.overrides._store._lane()  # type: ignore[attr-defined]
        entry = msgpack.packb({"policy": "month", "key": {"org": "x"}, "rate": 5, "until": None})
        fields = [text for n in range(5000) for text in (f"month:o{n}", entry)]
        await lane.run("HSET", "rl:{overrides}", "#version", "77", *fields)
        await limiter.overrides.refresh()
        assert len(limiter.overrides._known) == 5000
        assert await limit_of(limiter, Identity(org="o4999"), "month") == 5


async def test_whoever_is_cancelled_does_not_end_the_looking(redis_url: str, clock: ManualClock) -> None:
    """A first request that goes away leaves a worker that hears of changes."""
    limiter = Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock)
    first = asyncio.create_task(limiter.check(WHO))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock) as other:
        await other.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute")
    await look(limiter)
    assert await limit_of(limiter) == 9
    await limiter.aclose()


async def test_starting_again_looks_no_more_often(clock: ManualClock) -> None:
    """However often a limiter is closed and opened, there is one timer, and none when it is closed."""
    limiter = Limiter(SETTINGS, MemoryStore(clock=clock), clock)
    timers = list[asyncio.TimerHandle]()
    for _ in range(5):
        await limiter.start()
        timers += limiter.overrides._timers.values()
        await limiter.aclose()
    assert not limiter.overrides._timers
    assert all(timer.cancelled() for timer in timers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token:x", {"policy": ["token"], "key": {}, "rate": 5, "until": None}),
        ("token:x", {"policy": "token", "key": [], "rate": 5, "until": None}),
        ("token:x", {"policy": "token", "key": {}, "rate": [1, 2, 3], "until": None}),
        ("token:x", {"policy": "token", "key": {}, "rate": 5, "until": 2**62}),
        ("token:\udcff", {"policy": "token", "key": {}, "rate": [5, 60], "until": None}),
    ],
)
async def test_a_strange_entry_stops_nothing(redis_url: str, clock: ManualClock, name: str, value: Any) -> None:
    """Whatever somebody else writes there, requests are decided and the looking goes on."""
    limiter = Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock)
    run = limiter.overrides._store._lane().run  # type: ignore[attr-defined]
    await run(
        "HSET", "rl:{overrides}", name.encode("utf-8", "surrogateescape"), msgpack.packb(value), "#version", "odd"
    )
    assert await limit_of(limiter) == 2
    await look(limiter)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute")
    assert await limit_of(limiter) == 9
    await limiter.aclose()


async def test_a_store_that_is_away_is_said_to_who_sets_and_to_nobody_else(clock: ManualClock) -> None:
    """Setting raises; requests go on with what was known."""

    class Deaf(MemoryStore):
        async def notes(self, book: str, seen: int | None) -> Notes | None:
            raise StoreError("away")

    limiter = Limiter(SETTINGS, Deaf(clock=clock), clock)
    assert await limit_of(limiter) == 2
    with pytest.raises(StoreError):
        await limiter.overrides.list()


def test_a_refused_token_is_raised_in_another_process(redis_url: str) -> None:
    """Set here, served there, without a restart and while it is being refused.

    Workers look once a second, which leaves a second for the rest; on a machine that stands still it may take longer.
    """
    assert PAUSE <= 1
    settings = {
        "store": redis_url,
        "store_timeout": 10,
        "limits": [{"name": "token", "rate": "1/hour", "per": "token"}],
    }
    with uvicorn(settings) as url:
        statuses = [httpx2.get(url, headers={"x-token": "secret-token"}).status_code for _ in range(2)]
        assert statuses == [200, 429]
        asyncio.run(_raise(settings))
        began = time.monotonic()
        assert _soon(lambda: httpx2.get(url, headers={"x-token": "secret-token"}).status_code == 200, began)
        assert httpx2.get(url, headers={"x-token": "another-token"}).status_code == 200
        assert httpx2.get(url, headers={"x-token": "another-token"}).status_code == 429


async def _raise(settings: dict[str, Any]) -> None:
    async with Limiter(RateLimitSettings.model_validate(settings)) as limiter:
        await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="1000/hour")


def _soon(condition: Callable[[], bool], began: float, within: float = 20) -> bool:
    while time.monotonic() - began < within:
        if condition():
            return True
        pause()
    return False


async def test_all_first_requests_wait_for_the_overrides(redis_url: str, clock: ManualClock) -> None:
    """However many come at once, none is decided before they are known."""
    async with Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock) as other:
        await other.overrides.set(policy="token", key={"token": "secret-token"}, rate="1/minute")
    limiter = Limiter(SETTINGS, RedisStore(redis_url, clock=clock, timeout=10), clock)
    decisions = await asyncio.gather(*(limiter.check(WHO) for _ in range(6)))
    assert [decision.allowed for decision in decisions].count(True) == 1
    await limiter.aclose()


async def test_a_slow_look_does_not_undo_a_newer_one(clock: ManualClock) -> None:
    """What was read before a change does not come back after it."""

    class Slow(MemoryStore):
        gate: asyncio.Event | None = None

        async def notes(self, book: str, seen: int | None) -> Notes | None:
            told, gate = await super().notes(book, seen), self.gate
            self.gate = None
            if gate is not None:
                await gate.wait()
            return told

    store = Slow(clock=clock)
    limiter = Limiter(SETTINGS, store, clock)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="7/minute")
    limiter.overrides._seen = None
    gate = store.gate = asyncio.Event()
    slow = asyncio.create_task(limiter.overrides.refresh())
    await asyncio.sleep(0)
    await limiter.overrides.set(policy="token", key={"token": "secret-token"}, rate="9/minute")
    gate.set()
    await slow
    assert await limit_of(limiter) == 9


def test_closed_event_loops_are_let_go(clock: ManualClock) -> None:
    """A limiter that is used from one loop after the other holds on to the last alone."""
    limiter = Limiter(SETTINGS, MemoryStore(clock=clock), clock)
    for _ in range(5):
        asyncio.run(limit_of(limiter))
    assert len(limiter.overrides._timers) == 1
