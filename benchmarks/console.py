"""Time the first paint of the console's pages, with 50 policies and 10,000 callers on Redis."""

import asyncio
import random
from time import perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from benchmarks.harness import in_turns, redis, result
from benchmarks.report import Result
from ratelimit import Identity, Limit, Limiter, Quota, RateLimitSettings
from ratelimit.console import console

ROUNDS, POLICIES, CALLERS = 7, 48, 10_000
PAGES = {
    "overview": "/",
    "page of a policy": "/policies/limit1",
    "page of a caller": "/caller?org=org17",
    "quota of 10,000 callers": "/quotas/calls",
    "live": "/live",
}
GOAL_MS = 300


def run() -> Result:
    """Measure and return milliseconds from the request to the last byte, in the process of the app."""
    with redis() as server, asyncio.Runner() as runner:
        limiter = runner.run(filled(server.url))
        app = Starlette(routes=[Mount("/ratelimit", console(limiter, authorize=lambda _: True))])
        times = in_turns(
            {name: lambda path=path: runner.run(paint(app, path)) for name, path in PAGES.items()},  # type: ignore[misc]
            ROUNDS,
        )
        runner.run(limiter.aclose())
    best = {name: min(found) for name, found in times.items()}
    others = ", ".join(f"{name} {best[name]:.0f} ms" for name in list(PAGES)[1:])
    return result(
        "console",
        "First paint of the console, 50 policies, 10,000 callers",
        goal=f"≤ {GOAL_MS} ms",
        measured=f"overview {best['overview']:.0f} ms; {others}",
        unit="ms",
        times=times,
        first="overview",
    )


async def filled(url: str) -> Limiter:
    """Return a limiter whose statistics have an hour of 10,000 callers, refusals with them."""
    limits = [Limit(name=f"limit{n}", rate=f"{5 + n}/minute", per="org", shadow=n > 4) for n in range(POLICIES)]
    quotas = [Quota(name=name, limit=100, per="org", period="month") for name in ("calls", "jobs")]
    settings = RateLimitSettings(store=url, store_timeout=10, statistics=True, limits=limits, quotas=quotas)
    limiter, chance = Limiter(settings), random.Random(1)
    statistics = limiter.statistics
    assert statistics is not None
    for first in range(0, CALLERS, 100):
        callers = [Identity(org=f"org{number}") for number in range(first, first + 100)]
        callers += [Identity(org=f"org{chance.randrange(50)}") for _ in range(60)]
        await asyncio.gather(*(limiter.check(caller) for caller in callers))
        await statistics.flush_all()
    return limiter


async def paint(app: Any, path: str) -> float:
    """Ask for a page, and return the milliseconds that it took."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/ratelimit{path}",
        "root_path": "",
        "query_string": query.encode(),
        "headers": [],
        "scheme": "http",
        "server": ("localhost", 80),
    }
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    began = perf_counter()
    await app(scope, receive, send)
    assert statuses[0] == 200, statuses
    return (perf_counter() - began) * 1000
