"""Measure the cost of a check as routes, policies and keys grow, as ratios to the smallest number of each."""

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks.asgi.middleware_memory import SCOPE, identify, item, receive
from benchmarks.harness import compared, in_turns, redis, result
from benchmarks.report import Result
from ratelimit import Identity, Limit, Limiter, RateLimitMiddleware, RateLimitSettings, RedisStore
from ratelimit.resolver.resolver import PolicyResolver
from tests.support.redis_server import RedisServer

ROUNDS, REQUESTS, PLENTY = 9, 1500, 10**9
KEYS, AT_ONCE = (1000, 30_000, 1_000_000), 64

FIRST = Identity(ip="0000000")


def run() -> Result:
    """Measure and return microseconds per request."""
    measures: dict[str, Callable[[], float]] = {f"{n} routes": partial(by_routes(n)) for n in (5, 50, 500)}
    measures |= {f"{n} policies": by_policies(n) for n in (1, 4, 16)}
    with redis() as server:
        for n in KEYS:
            print(f"  making {n:,} keys", flush=True)
            measures[f"{n} keys"] = by_keys(n)
            measures[f"{n} keys on Redis"] = partial(on_redis, server, n)
        times = in_turns(measures, ROUNDS)
    routes = compared(times, "5 routes")["500 routes"]
    policies = compared(times, "1 policies")["16 policies"]
    keys = compared(times, f"{KEYS[0]} keys")[f"{KEYS[-1]} keys"]
    shared = compared(times, f"{KEYS[0]} keys on Redis")[f"{KEYS[-1]} keys on Redis"]
    return result(
        "scaling",
        "Cost as routes, policies and keys grow",
        goal="500 routes ≤ 1.15× of 5",
        measured=f"500 routes {routes:.2f}× of 5, 16 policies {policies:.1f}× of 1, 1,000,000 keys {keys:.2f}× of 1,000 "
        f"in memory and {shared:.2f}× on Redis",
        unit="µs a request",
        times=times,
        first="5 routes",
    )


def by_routes(count: int) -> Callable[[], float]:
    """Return a measure of a limited request to an app with `count` routes."""
    limits = [Limit(name="token", rate=f"{PLENTY}/minute", per="token")]
    routes = [Route(f"/r{n}/{{id}}", item) for n in range(count - 1)]
    # The router tries its routes in order; the requested one is the first, so that only our look-up depends on `count`.
    app: Any = Starlette(routes=[Route("/items/{id}", item), *routes])
    app.add_middleware(RateLimitMiddleware, settings=RateLimitSettings(limits=limits), identify=identify)
    return partial(_timed, app)


def _timed(app: Any) -> float:
    async def send(message: Any) -> None:
        pass

    async def requests() -> float:
        began = perf_counter()
        for n in range(REQUESTS):
            path = f"/items/{n % 3000}"  # Different paths, as in an app.
            await app({**SCOPE, "path": path, "raw_path": path.encode()}, receive, send)
        return (perf_counter() - began) / REQUESTS * 1e6

    return asyncio.run(requests())


def by_policies(count: int) -> Callable[[], float]:
    """Return a measure of a check of `count` policies."""
    limits = [Limit(name=f"p{n}", rate=f"{PLENTY}/minute", per="token") for n in range(count)]
    return partial(_checked, Limiter(RateLimitSettings(limits=limits)), 100)


def by_keys(count: int) -> Callable[[], float]:
    """Return a measure of a check among `count` keys."""
    limiter = Limiter(RateLimitSettings(limits=[Limit(name="p", rate=f"{PLENTY}/minute", per="token")]))
    _checked(limiter, count, count)
    return partial(_checked, limiter, count)


def on_redis(server: RedisServer, count: int) -> float:
    """Return the microseconds of a check among `count` keys on a server, 64 at a time."""
    limit = Limit(name=f"p{count}", rate=f"{PLENTY}/minute", per="ip")

    async def checks() -> float:
        async with Limiter(RateLimitSettings(limits=[limit]), RedisStore(server.url, timeout=30)) as limiter:
            await limiter.check(FIRST)
            _fill(server, limit.name, count)
            callers = [Identity(ip=f"{n * 7919 % count:07d}") for n in range(REQUESTS)]
            began = perf_counter()
            for start in range(0, REQUESTS, AT_ONCE):
                await asyncio.gather(*(limiter.check(each) for each in callers[start : start + AT_ONCE]))
            return (perf_counter() - began) / REQUESTS * 1e6

    return asyncio.run(checks())


def _fill(server: RedisServer, name: str, count: int) -> None:
    """Create the keys, unless they exist, as copies of a key that was charged."""
    resolver = PolicyResolver(RateLimitSettings(limits=[Limit(name=name, rate=f"{PLENTY}/minute", per="ip")]))
    charge = resolver.named.charge(name, FIRST, 1, 0, method="GET", endpoint="*")
    assert charge is not None
    with server.client() as client:
        if not client.exists(f"made:{name}"):
            state = client.get(charge.key)
            for start in range(0, count, 10_000):
                keys = (charge.key.replace("0000000", f"{n:07d}") for n in range(start, min(count, start + 10_000)))
                client.mset(dict.fromkeys(keys, state))
            client.set(f"made:{name}", 1)


def _checked(limiter: Limiter, keys: int, times: int = REQUESTS) -> float:
    async def checks() -> float:
        await limiter.start()
        callers = [Identity(token=f"t{n * 7919 % keys}") for n in range(times)]
        began = perf_counter()
        for each in callers:
            await limiter.check(each)
        return (perf_counter() - began) / times * 1e6

    return asyncio.run(checks())
