"""The promise: an app gets to know what is decided, and what it does with that changes no answer."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from ratelimit import (
    ConfigurationError,
    Identity,
    Limit,
    Limiter,
    Listener,
    MemoryStore,
    Quota,
    RateLimitMiddleware,
    RateLimitSettings,
)
from ratelimit.enforcement.events import CorrectionEvent, DecisionEvent, OverrideEvent, StoreEvent
from ratelimit.errors import StoreUnavailable
from ratelimit.stores.base import Store
from ratelimit.stores.messages import StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers, ok

SETTINGS = RateLimitSettings(
    limits=[
        Limit(name="token", rate="2/minute", per="token", paths="/limited"),
        Limit(name="watched", rate="1/minute", per="token", shadow=True, paths="/limited"),
        Limit(name="words", rate="100/minute", per="org", unit="words", manual=True),
    ],
    exempt=["/health"],
)


class Recording(Listener):
    """Keeps what it gets to know."""

    def __init__(self) -> None:
        self.decisions: list[DecisionEvent] = []
        self.corrections: list[CorrectionEvent] = []
        self.stores: list[StoreEvent] = []
        self.overrides: list[OverrideEvent] = []

    def on_decision(self, event: DecisionEvent) -> None:
        self.decisions.append(event)

    def on_correction(self, event: CorrectionEvent) -> None:
        self.corrections.append(event)

    def on_store(self, event: StoreEvent) -> None:
        self.stores.append(event)

    def on_override(self, event: OverrideEvent) -> None:
        self.overrides.append(event)


def client_of(limiter: Limiter) -> httpx.AsyncClient:
    app = Starlette(
        routes=[Route("/limited", ok), Route("/free", ok), Route("/health", ok)],
        middleware=[Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)],
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers={"x-token": "secret"})


@pytest.fixture
def heard() -> Recording:
    return Recording()


@pytest.fixture
async def limiter(store: Store, clock: ManualClock, heard: Recording) -> AsyncIterator[Limiter]:
    async with Limiter(SETTINGS, store, clock, listeners=[heard]) as limiter:
        yield limiter


async def test_each_request_is_one_event(limiter: Limiter, heard: Recording) -> None:
    """With its result, the refusing policy, its route, and a label that is no credential."""
    async with client_of(limiter) as client:
        for path in ("/limited", "/limited", "/limited", "/free", "/health"):
            await client.get(path)
    assert [(event.result, event.policy, event.route) for event in heard.decisions] == [
        ("admitted", None, "/limited"),
        ("admitted", None, "/limited"),
        ("refused", "token", "/limited"),
        ("unlimited", None, "/free"),
        ("exempt", None, "/health"),
    ]
    refused = heard.decisions[2]
    assert refused.label.startswith("token#")
    assert "secret" not in repr(heard.decisions)
    assert refused.seconds > 0
    states = [[event.state_of(limit) for limit in event.decision.limits] for event in heard.decisions[:3]]
    assert states == [["within", "near"], ["near", "shadow_over"], ["over", "shadow_over"]]


async def test_calls_without_http_are_events_too(limiter: Limiter, heard: Recording) -> None:
    """Checks, units by name, and what is corrected later; looking is none."""
    who = Identity(token="t", org="o")
    await limiter.peek(who, endpoint="/limited")
    decision = await limiter.check(who, endpoint="/limited")
    charged = await limiter.consume("words", who, 10)
    await charged.settle({"words": 25})
    await charged.settle({"words": 5})
    await limiter.consume("words", who, 7, force=True)
    await limiter.release("words", who, 3)
    assert [(event.result, event.source) for event in heard.decisions] == [("admitted", "store")] * 2
    assert [(each.action, each.units) for each in heard.corrections] == [
        ("settled", 15),
        ("refunded", 20),
        ("forced", 7),
        ("released", 3),
    ]
    assert decision.source == "store"


async def test_overrides_and_blocks_are_events(
    limiter: Limiter, heard: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """With the numbers that hold, which the log has too."""
    caplog.set_level(logging.INFO, "ratelimit")
    await limiter.overrides.set(policy="token", key={"token": "t"}, rate="9/minute")
    await limiter.block({"org": "o"})
    assert heard.overrides[-1] == OverrideEvent(overrides=1, blocks=1)
    assert [line for line in caplog.messages if "hold" in line] == [
        "1 overrides and 0 blocks hold",
        "1 overrides and 1 blocks hold",
    ]
    assert not (await limiter.check(Identity(org="o"))).allowed
    assert (heard.decisions[-1].result, heard.decisions[-1].policy) == ("refused", "blocked")


async def test_an_outage_is_an_event_when_it_begins_and_ends(clock: ManualClock, heard: Recording) -> None:
    """Decisions without the store are local."""

    class Flaky(MemoryStore):
        is_down = True

        async def submit(self, request: StoreRequest) -> StoreReply:
            if self.is_down:
                raise StoreUnavailable("down")
            return await super().submit(request)

    store = Flaky(clock=clock)
    limiter = Limiter(SETTINGS, store, clock, listeners=[heard])
    await limiter.check(Identity(token="t"), endpoint="/limited")
    store.is_down = False
    await limiter.check(Identity(token="t"), endpoint="/limited")
    assert heard.stores == [StoreEvent(is_available=False, error="down"), StoreEvent(is_available=True)]
    assert [event.source for event in heard.decisions] == ["local", "store"]


async def test_a_remembered_refusal_says_so(redis_url: str, clock: ManualClock, heard: Recording) -> None:
    """It asked no store."""
    settings = SETTINGS.model_copy(update={"store": redis_url})
    async with Limiter(settings, clock=clock, listeners=[heard]) as limiter:
        for _ in range(4):
            await limiter.check(Identity(token="t"), endpoint="/limited")
    assert [event.source for event in heard.decisions] == ["store", "store", "store", "cache"]


class Raising(Listener):
    """Fails whenever it is called."""

    def on_decision(self, event: DecisionEvent) -> None:
        raise ValueError("a secret")

    def on_correction(self, event: CorrectionEvent) -> None:
        raise ValueError("a secret")

    def on_store(self, event: StoreEvent) -> None:
        raise ValueError("a secret")


class Hanging(Listener):
    """Never returns."""

    async def on_decision(self, event: DecisionEvent) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("listener", [Raising(), Hanging()])
async def test_a_listener_that_fails_or_hangs_changes_no_answer(
    clock: ManualClock, listener: Listener, heard: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """The others get to know; the log has one line, without the text of the error."""
    limiter = Limiter(SETTINGS, MemoryStore(clock=clock), clock, listeners=[listener, heard])
    async with client_of(limiter) as client:
        statuses = [(await client.get("/limited")).status_code for _ in range(2000)]
    assert Counter(statuses) == {200: 2, 429: 1998}
    assert len(heard.decisions) == 2000
    lines = [line for line in caplog.messages if "listener" in line]
    assert lines == (
        ["a listener's on_decision failed with ValueError [RL506]"] if isinstance(listener, Raising) else []
    )
    assert "secret" not in caplog.text


def test_a_listener_derives_from_the_class() -> None:
    """Anything else fails where the limiter is made; so do listeners beside a limiter that is handed in."""
    wrong: Any = object()
    with pytest.raises(ConfigurationError, match="listeners: must derive from ratelimit.Listener"):
        Limiter(RateLimitSettings(), listeners=[wrong])
    limiter = Limiter(RateLimitSettings(), MemoryStore())
    with pytest.raises(ConfigurationError, match="hand the listeners to the limiter"):
        RateLimitMiddleware(Starlette(), limiter=limiter, listeners=[Recording()])


hostile = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@given(token=hostile, org=hostile, ip=hostile)
async def test_no_identity_writes_into_the_log(token: str, org: str, ip: str) -> None:
    """A token is in no event and no line, and nothing that a caller chooses breaks a line."""
    heard, clock = Recording(), ManualClock()
    settings = RateLimitSettings(limits=[Limit(name="all", rate="1/minute", per="org")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock, listeners=[heard])
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ratelimit")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        for identity in (Identity(token=f"tk_{token}_tk", org=org, ip=ip), Identity(org=org, ip=ip)):
            for _ in range(2):
                await limiter.check(identity)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    assert f"tk_{token}_tk" not in " ".join(lines) + repr([event.label for event in heard.decisions])
    assert lines
    assert all(line.isprintable() and "\n" not in line for line in lines)


async def test_the_month_and_a_level_have_their_events(store: Store, clock: ManualClock, heard: Recording) -> None:
    """Quotas are policies as all others."""
    settings = RateLimitSettings(quotas=[Quota(name="month", limit=1, period="month", per="org")])
    limiter = Limiter(settings, store, clock, listeners=[heard])
    for _ in range(2):
        await limiter.check(Identity(org="acme"))
    assert [(event.result, event.policy, event.label) for event in heard.decisions] == [
        ("admitted", None, "org:acme"),
        ("refused", "month", "org:acme"),
    ]


@pytest.mark.parametrize("hostile", ["192.0.2.7\nWARNING forged", "\x1b[2J", "x" * 500])
async def test_an_address_that_is_none_is_not_shown(limiter: Limiter, heard: Recording, hostile: str) -> None:
    """A header may hold anything."""
    await limiter.check(Identity(ip=hostile))
    assert heard.decisions[-1].label == "ip:?"


async def test_a_trial_of_many_is_one_event(limiter: Limiter, heard: Recording) -> None:
    """`at_most` asks the store several times, and decides once."""
    decision = await limiter.check(Identity(token="t"), endpoint="/limited", cost=5, at_most=True)
    assert decision.granted == 2
    assert len(heard.decisions) == 1


async def test_what_two_limiters_pass_is_one_event(clock: ManualClock) -> None:
    """The outer one says it; what the inner one refuses, it says itself."""
    outer, inner = Recording(), Recording()
    limiters = [Limiter(SETTINGS, MemoryStore(clock=clock), clock, listeners=[heard]) for heard in (outer, inner)]
    app = Starlette(
        routes=[Route("/free", ok), Route("/health", ok)],
        middleware=[Middleware(RateLimitMiddleware, limiter=each, identify=by_headers) for each in limiters],
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://x", headers={"x-token": "t"}
    ) as client:
        assert [(await client.get(path)).status_code for path in ("/health", "/free")] == [200, 200]
        await limiters[1].block({"token": "t"})
        assert (await client.get("/free")).status_code == 403
        assert (await client.post("/health")).status_code == 405
    assert [event.result for event in outer.decisions] == ["exempt", "unlimited", "unlimited"]
    assert [(event.result, event.policy) for event in inner.decisions] == [("refused", "blocked")]


async def test_a_listener_that_is_cancelled_changes_no_answer(clock: ManualClock, heard: Recording) -> None:
    """Its own cancelled work is not the request's."""

    class Cancelled(Listener):
        def on_decision(self, event: DecisionEvent) -> None:
            raise asyncio.CancelledError

    limiter = Limiter(SETTINGS, MemoryStore(clock=clock), clock, listeners=[Cancelled(), heard])
    assert (await limiter.check(Identity(token="t"))).allowed
    assert len(heard.decisions) == 1
