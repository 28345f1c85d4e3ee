"""The incident, the right way round: a gateway under a backfill flood of five times what it can do.

The gateway that started all this answered valid backfill traffic with 401 when it was overloaded. This one can do 60
requests a second, and admits backfill only while less than half of that is in use, by whomever; whatever is too much is
told 429 and how long to wait. Run it to see both kinds of traffic at once:  python -m examples.overload
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

from examples.serving import serving
from ratelimit import Identity, Limit, RateLimitMiddleware, RateLimitSettings
from ratelimit.http.identify import bearer_token

CAPACITY = 60
"""Requests per second that the gateway can do."""

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
class Told:
    """What one kind of traffic was answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    dishonest: int = 0
    waits: list[int] = field(default_factory=list)

    def note(self, response: httpx.Response) -> None:
        self.statuses[response.status_code] += 1
        if response.status_code == 429:
            wait = response.headers.get("retry-after", "")
            self.dishonest += not (wait.isascii() and wait.isdigit() and int(wait) >= 1)
            self.waits.append(int(wait))

    @property
    def served(self) -> float:
        return self.statuses[200] / max(1, self.statuses.total())


async def traffic(client: httpx.AsyncClient, token: str, rate: float, seconds: float, told: Told) -> None:
    """Send requests at `rate` a second, at irregular moments, without waiting for answers."""
    due, sent = time.monotonic(), list[asyncio.Task[httpx.Response]]()
    ends = due + seconds
    while due < ends:
        headers = {"authorization": f"Bearer {token}-{len(sent) % 7}"}
        sent.append(asyncio.create_task(client.get("/", headers=headers)))
        due += random.expovariate(rate)
        await asyncio.sleep(max(0, due - time.monotonic()))
    for response in await asyncio.gather(*sent):
        told.note(response)


async def drive(url: str, seconds: float, console: Console) -> tuple[Told, Told]:
    """Let people use a third of the capacity while backfill asks for five times all of it."""
    people, flood = Told(), Told()
    pool = httpx.Limits(max_connections=100)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("   people, and a flood of backfill", total=seconds)
        async with httpx.AsyncClient(base_url=url, limits=pool, timeout=30) as client:
            under_way = asyncio.gather(
                traffic(client, "person", CAPACITY / 3, seconds, people),
                traffic(client, "backfill", 5 * CAPACITY, seconds, flood),
            )
            while not under_way.done():
                await asyncio.wait([under_way], timeout=0.2)
                progress.advance(task, 0.2)
            await under_way
    return people, flood


def report(people: Told, flood: Told, console: Console) -> bool:
    """Show what each was answered, and say whether it is as promised."""
    table = Table("traffic", "sent", "served", "429", "401", "500", "other", "wait", box=None, padding=(0, 1))
    for name, told in (("people", people), ("backfill", flood)):
        counts, usual = told.statuses, {200, 429, 401, 500}
        other = sum(count for status, count in counts.items() if status not in usual)
        waits = " to ".join(map(str, sorted({min(told.waits), max(told.waits)}))) + " s" if told.waits else "–"
        served = f"{counts[200]} ({told.served:.1%})"
        table.add_row(name, *map(str, (counts.total(), served, counts[429], counts[401], counts[500], other, waits)))
    console.print(table)
    console.print(f" {CAPACITY} requests a second can be served; backfill is admitted while less than half is in use.")
    together = people.statuses + flood.statuses
    only_honest = together.keys() <= {200, 429} and not people.dishonest + flood.dishonest
    return only_honest and people.served >= 0.99 and flood.statuses[429] > 0


async def show(store: str, console: Console, seconds: float = 5) -> bool:
    """Start the gateway under uvicorn, overload it, and say whether it kept its promise."""
    async with serving("examples.overload:app", RATELIMIT_STORE=store) as url:
        return report(*await drive(url, seconds, console), console)


if __name__ == "__main__":
    console = Console(highlight=False)
    kept = asyncio.run(show(settings.store, console))
    console.print(
        " [green]as promised[/]" if kept else " [red]not as promised[/]: people ≥ 99 %, and nothing but 200 and 429"
    )
    sys.exit(0 if kept else 1)
