"""Overload: a gateway stays up under backfill traffic of five times its capacity.

A gateway that answers valid traffic with 401 when it is overloaded misleads its clients. This one has a capacity of 60
requests a second, and admits backfill only while less than half of it is in use. It refuses the rest with 429 and the time
to wait. This command shows both kinds of traffic at once:   python -m examples.server.overload
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples._support.serving import serving
from ratelimit import Identity, Limit, RateLimitMiddleware, RateLimitSettings
from ratelimit.asgi.identify import bearer_token

CAPACITY = 60
"""Requests per second that the gateway can serve."""

settings = RateLimitSettings(
    store=os.environ.get("RATELIMIT_STORE", "memory://"),
    key_prefix="overload",
    limits=[
        Limit(name="capacity", rate=f"{CAPACITY}/second", shares={"backfill": 0.5}),
        Limit(name="token", rate=f"{CAPACITY}/second", per="token"),
    ],
)


def identify(connection: HTTPConnection) -> Identity:
    token = bearer_token(connection) or ""
    return Identity(token=token, priority="backfill" if token.startswith("backfill") else None)


async def answer(request: Request) -> Response:
    return JSONResponse({"answer": 42})


app = Starlette(
    routes=[Route("/", answer)],
    middleware=[Middleware(RateLimitMiddleware, settings=settings, identify=identify)],
)


@dataclass
class TrafficReport:
    """The answers to one kind of traffic.

    `missing_waits` counts the answers of 429 without a valid `Retry-After`.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    missing_waits: int = 0
    waits: list[int] = field(default_factory=list)

    def record(self, response: httpx.Response) -> None:
        self.statuses[response.status_code] += 1
        if response.status_code == 429:
            wait = response.headers.get("retry-after", "")
            self.missing_waits += not (wait.isascii() and wait.isdigit() and int(wait) >= 1)
            self.waits.append(int(wait))

    @property
    def served(self) -> float:
        return self.statuses[200] / max(1, self.statuses.total())


async def traffic(client: httpx.AsyncClient, token: str, rate: float, seconds: float, report: TrafficReport) -> None:
    """Send requests at `rate` a second, at random moments, without waiting for answers."""
    due, sent = time.monotonic(), list[asyncio.Task[httpx.Response]]()
    ends = due + seconds
    while due < ends:
        headers = {"authorization": f"Bearer {token}-{len(sent) % 7}"}
        sent.append(asyncio.create_task(client.get("/", headers=headers)))
        due += random.expovariate(rate)
        await asyncio.sleep(max(0, due - time.monotonic()))
    for response in await asyncio.gather(*sent):
        report.record(response)


async def drive(url: str, seconds: float, console: Console) -> tuple[TrafficReport, TrafficReport]:
    """Send a third of the capacity as traffic of people, and five times the capacity as backfill."""
    people, backfill = TrafficReport(), TrafficReport()
    pool = httpx.Limits(max_connections=100)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("   people, and too much backfill", total=seconds)
        async with httpx.AsyncClient(base_url=url, limits=pool, timeout=30) as client:
            sending = asyncio.gather(
                traffic(client, "person", CAPACITY / 3, seconds, people),
                traffic(client, "backfill", 5 * CAPACITY, seconds, backfill),
            )
            while not sending.done():
                await asyncio.wait([sending], timeout=0.2)
                progress.advance(task, 0.2)
            await sending
    return people, backfill


def print_report(people: TrafficReport, backfill: TrafficReport, console: Console) -> bool:
    """Print the answers to both kinds of traffic, and return whether they are as promised."""
    table = Table("traffic", "sent", "served", "429", "401", "500", "other", "wait", box=None, padding=(0, 1))
    for name, report in (("people", people), ("backfill", backfill)):
        counts, usual = report.statuses, {200, 429, 401, 500}
        other = sum(count for status, count in counts.items() if status not in usual)
        waits = " to ".join(map(str, sorted({min(report.waits), max(report.waits)}))) + " s" if report.waits else "–"
        served = f"{counts[200]} ({report.served:.1%})"
        table.add_row(name, *map(str, (counts.total(), served, counts[429], counts[401], counts[500], other, waits)))
    console.print(table)
    console.print(
        f" The capacity is {CAPACITY} requests a second; backfill is admitted while less than half of it is in use."
    )
    together = people.statuses + backfill.statuses
    all_valid = together.keys() <= {200, 429} and not people.missing_waits + backfill.missing_waits
    return all_valid and people.served >= 0.99 and backfill.statuses[429] > 0


async def show(store: str, console: Console, seconds: float = 5) -> bool:
    """Start the gateway under uvicorn, overload it, and return whether the answers are as promised."""
    async with serving("examples.server.overload:app", RATELIMIT_STORE=store) as url:
        return print_report(*await drive(url, seconds, console), console)


if __name__ == "__main__":
    console = Console(highlight=False)
    as_promised = asyncio.run(show(settings.store, console))
    console.print(
        " [green]as promised[/]"
        if as_promised
        else " [red]not as promised[/]: people ≥ 99 %, and nothing but 200 and 429"
    )
    sys.exit(0 if as_promised else 1)
