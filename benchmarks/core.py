"""The cases of the hot-path suite: each is one operation of the limiter's core, ready to be repeated.

`make bench-core` times them (pytest-benchmark) and counts their instructions (valgrind), which do not depend on the load
of the machine.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

import msgpack

from benchmarks.asgi.middleware_memory import LIMITS, NOTHING_LEFT, SCOPE, app, identify, receive, send
from benchmarks.harness import redis
from ratelimit import Decision, Identity, Limiter, Listener, RateLimitMiddleware, RateLimitSettings, ResponseStyle
from ratelimit.asgi.headers import response_headers
from ratelimit.enforcement.rejection_cache import RejectionCache
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import StoreRequest
from ratelimit.stores.redis import codec

Case = Callable[[], object]

NOW: Final = 1_700_000_000_000_000
"""The time of all cases, in epoch microseconds."""

IETF: Final = ResponseStyle(headers=["x-ratelimit", "ietf"])

PRESENT: Final = [(b"content-length", b"2"), (b"content-type", b"text/plain; charset=utf-8")]
"""The headers that the app itself sets."""

BATCH: Final = 32
"""Requests in a batch."""


class Counting(Listener):
    """Lets the limiter count as statistics do, or, with `measures`, as `PrometheusListener`: both read only later."""

    def __init__(self, *, measures: bool) -> None:
        self._measures = measures

    def attach(self, limiter: Any) -> None:
        """Count what this limiter decides."""
        limiter.observer.count(measures=self._measures)


def drive(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a coroutine that never waits to its end, and return its result."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


@asynccontextmanager
async def cases() -> AsyncIterator[dict[str, Case]]:
    """Yield all cases, prepared and warm; call them in the running event loop."""
    limiter = Limiter(RateLimitSettings(limits=LIMITS), clock=lambda: NOW)
    await limiter.start()
    caller, numbers = Identity(token="secret", org="acme"), count()
    apps: list[Any] = [app(LIMITS), app(LIMITS[:1]), app(NOTHING_LEFT), app()]
    apps += [app(LIMITS, [Counting(measures=measures)]) for measures in (False, True)]
    limited, limited_once, refusing, bare, counted, measured = apps
    for each in apps:
        await each(dict(SCOPE), receive, send)
    policies = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/x"))
    charges, rejections, refused = policies.charges(caller), *await _refused()
    batch = [StoreRequest(policies.charges(Identity(token=f"t{n}", org="acme"))) for n in range(BATCH)]
    reply = msgpack.packb([1, NOW // 1000, *[999_999, 60_000, -30] * len(LIMITS) * BATCH])
    readings = [(999_999, 60_000, -30)] * len(charges)
    # These names stand in core_baseline.json too.
    found: dict[str, Case] = {
        "the app alone": lambda: drive(bare(dict(SCOPE), receive, send)),
        "the app with one limit": lambda: drive(limited_once(dict(SCOPE), receive, send)),
        "the app with three limits": lambda: drive(limited(dict(SCOPE), receive, send)),
        "the app with three limits, counted": lambda: drive(counted(dict(SCOPE), receive, send)),
        "the app with three limits, measured": lambda: drive(measured(dict(SCOPE), receive, send)),
        "the app, refusing": lambda: drive(refusing(dict(SCOPE), receive, send)),
        "a check of three limits": lambda: drive(limiter.check(caller, endpoint="/x")),
        "charges of a caller who is known": lambda: policies.charges(caller),
        "charges of a new caller": lambda: policies.charges(Identity(token=f"new{next(numbers)}", org="acme")),
        "a decision of three limits": lambda: Decision.from_readings(charges, readings, NOW).binding,
        "headers": lambda: response_headers(Decision.from_readings(charges, readings, NOW), IETF, 200, PRESENT),
        "a refusal that is remembered": lambda: rejections.lookup(refused, NOW + 1000),
        f"a batch of {BATCH}, packed": lambda: codec.encode_command(
            *codec.encode(batch, now=None, ttl_floor=0, name="name", number=1)
        ),
        f"a batch of {BATCH}, read": lambda: list(codec.decode(reply, batch, NOW, 1)),
    }
    async with _remembering() as remembering:
        found["the app on Redis, refusing from memory"] = lambda: drive(remembering(dict(SCOPE), receive, send))
        yield found


@asynccontextmanager
async def _remembering() -> AsyncIterator[Any]:
    """Yield an app that remembers a refusal of Redis."""
    with redis() as server:
        settings = RateLimitSettings(store=server.url, store_timeout=60, limits=NOTHING_LEFT)
        async with Limiter(settings, clock=lambda: NOW) as limiter:  # A rejection is remembered for a second.
            served: Any = app()
            served.add_middleware(RateLimitMiddleware, limiter=limiter, identify=identify)
            for _ in range(2):
                await served(dict(SCOPE), receive, send)
            yield served


async def _refused() -> tuple[RejectionCache, list[Charge]]:
    """Return charges that were refused, and the cache that holds their rejection."""
    limiter = Limiter(RateLimitSettings(limits=NOTHING_LEFT), clock=lambda: NOW)
    policies = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/x"))
    charges = list(policies.charges(Identity(token="secret")))
    for _ in range(2):
        decision = await limiter.check(Identity(token="secret"), endpoint="/x")
    rejections = RejectionCache()
    rejections.store(charges, decision.limits, NOW)
    return rejections, charges
