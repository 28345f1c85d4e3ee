"""Explanations: they equal what the middleware then does, for random settings, callers and requests, and charge nothing."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ratelimit import (
    Concurrency,
    ConfigurationError,
    Hours,
    Identity,
    Limit,
    Limiter,
    Listener,
    Quota,
    RateLimitMiddleware,
    RateLimitSettings,
    ResponseStyle,
    exempt,
    limit,
)
from ratelimit.enforcement.events import DecisionEvent
from ratelimit.inspection import Explanation, explain
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds

METHODS = ("GET", "POST")
PATHS = ("/a", "/b/1", "/c", "/free", "/nowhere")
RATES: tuple[int | str, ...] = (1, 8, "unlimited")
STYLES = (
    ResponseStyle(),
    ResponseStyle(headers=["x-ratelimit", "ietf"]),
    ResponseStyle(headers=["ietf"], members="documented"),
    ResponseStyle(headers=["x-ratelimit"], problem="legacy", retry_after="exhausted"),
)


async def answer(request: Any) -> PlainTextResponse:
    return PlainTextResponse("served")


@limit("2/minute", per="org")
async def decorated(request: Any) -> PlainTextResponse:
    return PlainTextResponse("served")


@exempt
async def free(request: Any) -> PlainTextResponse:
    return PlainTextResponse("served")


def random_policy(chance: random.Random, number: int) -> Limit:
    options: dict[str, Any] = {
        "per": chance.choice(["token", "org", "ip", ["token", "endpoint"], [], ["plan"]]),
        "burst": chance.choice([0.0, 0.25, 1.0]),
        "methods": chance.choice([(), ("POST",), ("GET",)]),
        "paths": chance.choice([(), ("/a",), ("/b/*", "/c"), ("!/a",)]),
        "shadow": chance.random() < 0.15,
        "cost": chance.choice([1, 1, 2]),
        "plans": chance.choice([{}, {"pro": "6/minute", "free": "1/minute"}, {"pro": "unlimited"}]),
        "shares": chance.choice([{}, {"backfill": 0.5}]),
        "default": chance.random() < 0.2,
    }
    if chance.random() < 0.2:
        options["schedule"] = [Hours(start="00:00", end="24:00", rate="4/minute")]
    return Limit(
        name=f"l{number}", rate=f"{chance.choice([1, 2, 3, 5, 70])}/{chance.choice(['second', 'minute'])}", **options
    )


def random_settings(chance: random.Random) -> RateLimitSettings:
    return RateLimitSettings(
        limits=[random_policy(chance, number) for number in range(chance.randint(0, 4))],
        quotas=[Quota(name="q", limit=chance.choice([3, 20]), period="day", per="org")]
        if chance.random() < 0.5
        else [],
        concurrency=[Concurrency(name="n", limit=chance.choice([1, 9]), per="token")] if chance.random() < 0.4 else [],
        exempt=["/free"] if chance.random() < 0.5 else [],
        response=chance.choice(STYLES),
    )


def random_identity(chance: random.Random) -> Identity:
    return Identity(
        token=chance.choice([None, "t1", "t2"]),
        org=chance.choice([None, "o1"]),
        ip="192.0.2.1",
        plan=chance.choice([None, "pro", "free"]),
        priority=chance.choice([None, "backfill"]),
        rates=chance.choice([{}, {}, {"l0": "9/minute"}]),
    )


class Served(Listener):
    """An app with random limits, its limiter, and who asks."""

    def __init__(self, settings: RateLimitSettings, store: Store, clock: ManualClock) -> None:
        self.limiter = Limiter(settings, store, clock, [self])
        self.decision: Any = None
        self.identity = Identity()
        routes = [
            Route("/a", answer, methods=["GET", "POST"]),
            Route("/b/{id}", decorated, methods=["GET", "POST"]),
            Route("/c", answer),
            Route("/free", free),
        ]
        self.app = RateLimitMiddleware(
            Starlette(routes=routes), limiter=self.limiter, identify=lambda connection: self.identity
        )

    def on_decision(self, event: DecisionEvent) -> None:
        self.decision = event.decision

    async def explained(self, method: str, path: str) -> Explanation:
        scope = {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}
        place = self.app.endpoint_matcher.find(scope)
        return await explain(self.limiter, self.identity, method=method, endpoint=place, request_id="r-1")

    async def asked(self, method: str, path: str) -> httpx.Response:
        self.decision = None
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://x", headers={"x-request-id": "r-1"}
        ) as client:
            return await client.request(method, path)


async def random_control(chance: random.Random, limiter: Limiter, clock: ManualClock) -> None:
    until = in_seconds(clock, 30)
    names = [policy.name for policy in limiter.settings.policies]
    what = chance.random()
    if names and what < 0.1:
        await limiter.fleet.shadow(policy=chance.choice(names))
    elif names and what < 0.15:
        await limiter.fleet.pause(policy=chance.choice(names), until=until)
    elif names and what < 0.3:
        await limiter.overrides.set(policy=chance.choice(names), plan="pro", rate=chance.choice(RATES))
    elif what < 0.35:
        await limiter.allowed.set({"org": "o1"}, until=until)
    elif what < 0.4:
        await limiter.block({"token": "t2"}, until=until)


def check_equal(told: Explanation, then: httpx.Response, decision: Any) -> None:
    """Compare the status, every header of the limiter and every byte of a refusal; the policies and their numbers."""
    assert told.decision.status == (429 if then.status_code == 429 else 403 if then.status_code == 403 else 200)
    assert told.decision.allowed == (then.status_code not in (403, 429))
    assert {name: then.headers.get(name) for name, _ in told.headers} == dict(told.headers)
    if not told.decision.allowed:
        assert (told.body, len(told.headers)) == (then.content, len(then.headers))
        return
    of_limiter = {name for name in then.headers if name.startswith(("x-ratelimit", "ratelimit", "retry-after"))}
    assert of_limiter == {name for name, _ in told.headers}
    if not told.is_listed:
        limits = () if decision is None else decision.limits  # An exempt endpoint has none.
        numbers = [(each.policy, each.remaining, each.shadow and each.retry_after) for each in limits]
        assert numbers == [
            (each.policy, each.remaining, each.shadow and each.wait) for each in told.policies if each.applies
        ]


async def play(seed: int, store: Store, clock: ManualClock, requests: int) -> int:
    chance, refused = random.Random(seed), 0
    settings = random_settings(chance).model_copy(update={"key_prefix": f"rl{seed}"})
    served = Served(settings, store, clock)
    for _ in range(requests):
        clock.advance(seconds=chance.choice([0.0, 0.01, 1.0, 7.0]))
        served.identity = random_identity(chance)
        await random_control(chance, served.limiter, clock)
        method, path = chance.choice(METHODS), chance.choice(PATHS)
        await served.limiter.fleet.end_those_over()
        told, again = await served.explained(method, path), await served.explained(method, path)
        assert told.as_dict() == again.as_dict()
        check_equal(told, await served.asked(method, path), served.decision)
        refused += not told.decision.allowed
    return refused


async def test_it_equals_what_the_middleware_then_does(store: Store, clock: ManualClock) -> None:
    """Applies, rate, numbers and the bytes of the answer, for 500 random requests on random settings and each store."""
    refused = sum([await play(seed, store, clock, 20) for seed in range(25)])
    assert 50 < refused < 450


async def test_the_chain_names_every_source_in_its_order() -> None:
    """The first holds; each reason why a policy does not apply is in words."""
    clock = ManualClock(int(datetime(2026, 5, 17, 23, tzinfo=UTC).timestamp()) * 1_000_000)
    settings = RateLimitSettings(
        limits=[
            Limit(
                name="a",
                rate="1/minute",
                per="token",
                plans={"pro": "2/minute"},
                schedule=[Hours(start="22:00", end="06:00", rate="3/minute")],
            ),
            Limit(name="org", rate="1/minute", per="org"),
            Limit(name="writes", rate="1/minute", per="token", methods="POST"),
            Limit(name="elsewhere", rate="1/minute", per="token", paths="/b"),
            Limit(name="named", rate="1/minute", per="token", manual=True),
            Limit(name="default", rate="1/minute", per="token", default=True),
            Limit(name="own", rate="1/minute", per="token", paths="/a"),
            Limit(name="lifted", rate="1/minute", per="token", plans={"pro": None}),
            Limit(name="paused", rate="1/minute", per="token"),
        ]
    )
    limiter = Limiter(settings, clock=clock)
    await limiter.overrides.set(policy="a", key={}, rate="4/minute")
    await limiter.fleet.pause(policy="paused", until=datetime(2026, 5, 18, tzinfo=UTC))
    told = await explain(limiter, Identity(token="t", plan="pro", rates={"a": "5/minute"}), endpoint="/a")
    policies = {each.policy: each for each in told.policies}
    assert [(step.source, step.rate, step.holds) for step in policies["a"].chain] == [
        ("grant", "5/minute", True),
        ("override", "4/minute", False),
        ("schedule", "3/minute", False),
        ("plan", "2/minute", False),
        ("rate", "1/minute", False),
    ]
    assert (policies["a"].rate, policies["a"].used, policies["a"].remaining) == ("5/minute", 0, 4)
    assert {name: each.why_not for name, each in policies.items() if not each.applies} == {
        "org": "the caller has no org",
        "writes": "it holds for POST alone",
        "elsewhere": "its paths do not include GET /a",
        "named": "it is charged by its name alone",
        "default": "it gives way to 'own', a limit of the endpoint's own",
        "lifted": "it is unlimited by the plan",
        "paused": "it is paused until 2026-05-18 00:00:00 UTC",
    }


async def test_endless_waits_are_null_and_mistakes_are_named() -> None:
    """A cost above the limit never fits; only an identity can be explained."""
    limiter = Limiter(RateLimitSettings(limits=[Limit(name="a", rate="1/minute", per="token", cost=5)]))
    told = (await explain(limiter, Identity(token="t"))).as_dict()
    assert (told["allowed"], told["retry_after"], told["policies"][0]["wait"]) == (False, None, None)
    assert (told["binding"], told["status"]) == ("a", 429)
    with pytest.raises(ConfigurationError, match="identity: must be an Identity, got str"):
        await explain(limiter, "t")  # type: ignore[arg-type]
    await asyncio.sleep(0)
