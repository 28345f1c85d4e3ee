"""Measure a flood of cached rejections: the cost against the bare app, and the number of store commands."""

import asyncio
from time import perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks.asgi.middleware_memory import SCOPE, identify, item, receive, send
from benchmarks.harness import compared, redis, result
from benchmarks.report import Result
from ratelimit import Limit, RateLimitMiddleware, RateLimitSettings
from tests.support.redis_server import RedisServer

ROUNDS, REQUESTS = 25, 1000
BARE, REFUSED = "bare Starlette", "a cached rejection"


def run() -> Result:
    """Measure and return microseconds per request."""
    with redis() as server:
        times, commands = asyncio.run(measure(server))
    return result(
        "middleware_redis",
        "A cached rejection, counted on Redis, against the bare app",
        goal="≤ 2×, 0 store commands",
        measured=f"{compared(times, BARE)[REFUSED]:.2f}×, {commands} commands for {ROUNDS * REQUESTS} refusals",
        unit="µs a request",
        times=times,
        first=BARE,
    )


async def measure(server: RedisServer) -> tuple[dict[str, list[float]], int]:
    """Return the rounds of both apps, and the number of scripts that the server ran for the rejections."""
    bare = Starlette(routes=[Route("/items/{id}", item)])
    app: Any = Starlette(routes=[Route("/items/{id}", item)])
    limits = [Limit(name=name, rate="1/day", per=per) for name, per in (("token", "token"), ("org", "org"))]
    settings = RateLimitSettings(store=server.url, store_timeout=10, limits=limits)
    app.add_middleware(RateLimitMiddleware, settings=settings, identify=identify)
    times: dict[str, list[float]] = {BARE: [], REFUSED: []}
    for _ in range(2):
        await once(app, 50)
    with server.client() as client:
        client.config_resetstat()
        for _ in range(ROUNDS):
            times[BARE].append(await once(bare, REQUESTS))
            times[REFUSED].append(await once(app, REQUESTS))
        stats: Any = client.info("commandstats")
    return times, sum(stats[name]["calls"] for name in stats if name in ("cmdstat_evalsha", "cmdstat_eval"))


async def once(app: Any, requests: int) -> float:
    """Return microseconds per request."""
    began = perf_counter()
    for _ in range(requests):
        await app(dict(SCOPE), receive, send)
    return (perf_counter() - began) / requests * 1e6
