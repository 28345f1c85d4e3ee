"""Measure what the middleware costs on the in-process store, with three limits and headers.

The same Starlette app is called as ASGI, without a server: bare, with one limit, with three limits, and with a limit that
refuses every request. Each round measures all four, so that a machine that slows down slows all of them; the figures are
medians of ratios.
"""

import asyncio
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.report import Result
from ratelimit import Identity, Limit, Listener, RateLimitMiddleware, RateLimitSettings

ROUNDS, REQUESTS = 25, 2_000
PLENTY = 10**9

LIMITS: Final = [
    Limit(name="token", rate=f"{PLENTY}/minute", per="token", burst=0.25),
    Limit(name="org", rate=f"{PLENTY}/minute", per="org"),
    Limit(name="endpoint", rate=f"{PLENTY}/minute", per=["endpoint", "token"]),
]
NOTHING_LEFT: Final = [Limit(name="token", rate="1/day", per="token")]

SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/items/1",
    "raw_path": b"/items/1",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"x"), (b"user-agent", b"b"), (b"accept", b"*/*"), (b"authorization", b"Bearer abcdefgh")],
    "client": ("192.0.2.1", 1),
    "server": ("x", 80),
}


def run() -> Result:
    """Measure and return microseconds per request for each app."""
    apps = {
        "bare Starlette": app(),
        "one limit": app(LIMITS[:1]),
        "three limits, headers": app(LIMITS),
        "a refusal": app(NOTHING_LEFT),
    }
    times = asyncio.run(measure(apps))
    bare = times["bare Starlette"]
    ratios = {name: median(t / b for t, b in zip(each, bare, strict=True)) for name, each in times.items()}
    for name, each in times.items():
        print(f"  {name:24} {median(each):6.1f} µs a request   {ratios[name]:.2f}×")
    return Result(
        name="middleware_memory",
        question="Middleware in memory against the bare app",
        goal="three limits and headers ≤ 5×, then ≤ 3×",
        measured=", ".join(f"{name} {ratio:.2f}×" for name, ratio in list(ratios.items())[1:]),
        unit="µs a request",
        bars={name: round(median(each), 2) for name, each in times.items()},
        spread={name: (round(min(each), 2), round(max(each), 2)) for name, each in times.items()},
        ratios={name: round(ratio, 2) for name, ratio in ratios.items()},
    )


def app(limits: list[Limit] | None = None, listeners: Sequence[Listener] = ()) -> Starlette:
    """Return the app, with the middleware if `limits` are given, and perhaps with listeners."""
    served = Starlette(routes=[Route("/items/{id}", item)])
    if limits is not None:
        settings = RateLimitSettings(limits=limits)
        served.add_middleware(RateLimitMiddleware, settings=settings, identify=identify, listeners=listeners)
    return served


async def item(request: Request) -> Response:
    """Return the smallest useful response."""
    return PlainTextResponse("ok")


def identify(connection: HTTPConnection) -> Identity:
    """Identify the caller as an app does that keeps its tokens in memory."""
    return Identity(token=connection.headers["authorization"], org="acme")


async def measure(apps: dict[str, Starlette]) -> dict[str, list[float]]:
    """Return microseconds per request, for each app a list of rounds."""
    times: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(ROUNDS + 2):
        for name, served in apps.items():
            times[name].append(await once(served))
    return {name: each[2:] for name, each in times.items()}  # The first two rounds are a warm-up.


async def once(served: Callable[..., Any]) -> float:
    """Return microseconds per request over one round."""
    start = perf_counter()
    for _ in range(REQUESTS):
        await served(dict(SCOPE), receive, send)
    return (perf_counter() - start) / REQUESTS * 1e6


async def receive() -> dict[str, Any]:
    """Return an empty body."""
    return {"type": "http.request", "body": b""}


async def send(message: dict[str, Any]) -> None:
    """Drop the response."""
