"""An app with the console on it and a page for each caller; with `SEED`, as if a day of traffic had passed."""

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from ratelimit import Concurrency, Identity, Limit, Limiter, Quota, RateLimitMiddleware, RateLimitSettings, open_store
from ratelimit.asgi.identify import bearer_token
from ratelimit.clock import system_clock
from ratelimit.config.schedule import Hours
from ratelimit.console import caller_page, console


class ShiftedClock:
    """The system's clock, so many microseconds behind."""

    behind = 0

    def __call__(self) -> int:
        return system_clock() - self.behind


SETTINGS = RateLimitSettings(
    store=os.environ.get("STORE", "memory://"),
    store_timeout=10,
    statistics=True,
    limits=[
        Limit(name="agents", rate="30/minute", per="token", burst=0.25, plans={"pro": "120/minute"}),
        Limit(name="org", rate="600/minute", per="org", shares={"backfill": 0.5}),
        Limit(name="night", rate="100/hour", per="ip", schedule=[Hours(start="22:00", end="06:00", rate="400/hour")]),
        Limit(name="planned", rate="20/minute", per="org", shadow=True),
        Limit(name="export", rate="2/hour", per=["endpoint", "org"], paths=["/v1/export"]),
    ],
    quotas=[
        Quota(name="requests", limit=2000, per="org", period="month", plans={"pro": 50_000}),
        Quota(name="stored", limit=500, per="org", period=None, unit="GB", manual=True),
    ],
    concurrency=[Concurrency(name="batches", limit=4, per="org", paths=["/v1/export"])],
)


def identify(connection: HTTPConnection) -> Identity | None:
    """Read the made-up tokens `<org>-<plan>-<number>`."""
    token = bearer_token(connection)
    if token is None or token.count("-") != 2:
        return None
    org, plan, _ = token.split("-")
    return Identity(token=token, org=org, plan=plan)


def operator(request: Request) -> str | None:
    """Anyone but those who say that they are not."""
    return None if "x-stranger" in request.headers else "maria"


async def answer(request: Request) -> Response:
    return PlainTextResponse("ok")


async def seed(limiter: Limiter, clock: ShiftedClock) -> None:
    """Make a day of traffic of some organizations pass."""
    chance, statistics = random.Random(7), limiter.statistics
    assert statistics is not None
    for back in [*range(1440, 60, -10), *range(60, 0, -1)]:
        clock.behind = back * 60_000_000
        share = (1 + abs(720 - back) / 720) / (1 if back > 60 else 3)
        for org, plan, weight in [
            ("acme", "free", 9),
            ("globex", "pro", 30),
            *((f"shop{n}", "free", n) for n in range(1, 10)),
        ]:
            for _ in range(round(chance.expovariate(1 / (weight * share)))):
                token = f"{org}-{plan}-{chance.randrange(2)}"
                await limiter.check(Identity(token=token, org=org, plan=plan), endpoint="/v1/agents")
        await statistics.flush_all()
    clock.behind = 0


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with limiter:
        if "SEED" in os.environ:
            await seed(limiter, clock)
        yield


clock = ShiftedClock()
limiter = (
    Limiter(SETTINGS, open_store(SETTINGS.store, clock=clock), clock) if "SEED" in os.environ else Limiter(SETTINGS)
)
app = Starlette(
    routes=[
        Route("/v1/agents", answer, methods=["GET", "POST"]),
        Route("/v1/export", answer),
        Mount("/ratelimit", console(limiter, authorize=operator, authorize_changes=operator)),
        Mount("/readonly", console(limiter, authorize=operator)),
        Mount("/limits", caller_page(limiter)),
    ],
    middleware=[Middleware(RateLimitMiddleware, limiter=limiter, identify=identify)],
    lifespan=lifespan,
)
