"""The demo: starts `three_layers.py` under uvicorn, sends requests to it over HTTP, and prints the answers."""

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import redis
import redis.asyncio
from rich.console import Console
from rich.json import JSON
from rich.panel import Panel
from rich.progress import track
from rich.rule import Rule

from examples._support.serving import DemoError, serving
from examples.server import overload
from ratelimit import RateLimitSettings

console = Console(highlight=False)

_SHOWN = ("x-ratelimit-", "retry-after", "cache-control", "content-type")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="memory://", help="the store of the counters, such as redis://localhost")
    store = parser.parse_args().store
    try:
        asyncio.run(demo(store))
    except DemoError as error:
        console.print(f"[bold red]not as promised:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return 0


async def demo(store: str) -> None:
    await check_store(store)
    admin = uuid4().hex
    async with (
        serving("examples.server.three_layers:app", RATELIMIT_STORE=store, ADMIN_KEY=admin) as url,
        httpx.AsyncClient(base_url=url, timeout=10) as client,
    ):
        where = "the memory of the process" if store.startswith("memory") else "Redis"
        console.print(Panel(f"examples/server/three_layers.py runs under uvicorn and counts in [bold]{where}[/]"))
        await show_success(client)
        refused = await show_burst_and_refusal(client)
        await show_override(client, refused, admin)
        await show_retry_after(client)
        await show_organization(client)
        await show_quota(client)
        await show_health(client)
    await show_overload(store)
    console.print(Rule(style="green"))
    console.print(
        "[bold green]all as promised.[/] Next: [bold]make serve[/] keeps the server running; README.md has the rest."
    )


async def check_store(store: str) -> None:
    """Fail before the server starts: it would serve requests even without its store."""
    try:
        RateLimitSettings(store=store)
    except ValueError as error:
        raise DemoError(f"--store {error}") from None
    if store.startswith("memory://"):
        return
    client = redis.asyncio.Redis.from_url(store, socket_connect_timeout=2, socket_timeout=2)
    try:
        ping: Any = client.execute_command
        await ping("PING")
    except redis.RedisError as error:
        raise DemoError(
            f"no Redis server answers at this address ({error}); start one with redis-server, or leave STORE out"
        ) from None
    finally:
        await client.aclose()


def bearer(org: str, plan: str = "team") -> dict[str, str]:
    """Make up a token, a new one each time, so that a demo on a shared Redis starts with unused limits."""
    return {"authorization": f"Bearer tk_{org}_{plan}_{uuid4().hex[:8]}"}


async def show_success(client: httpx.AsyncClient) -> None:
    step(1, "a success, with its headers; reads and writes are counted separately")
    token = bearer(uuid4().hex[:6])
    read = show(await client.get("/api/agents", headers=token), 200)
    write = show(await client.post("/api/agents", headers=token), 201)
    expect(read.headers["x-ratelimit-limit"] == "600", "600 reads a minute")
    expect(write.headers["x-ratelimit-remaining"] == "119", "119 writes are left after one")


async def show_burst_and_refusal(client: httpx.AsyncClient) -> dict[str, str]:
    step(2, "a burst: 600/minute and 25 % more, then a refusal")
    token, served, last = bearer(uuid4().hex[:6]), 0, None
    for _ in track(range(760), description="   760 reads as fast as possible", console=console, transient=True):
        last = await client.get("/api/agents", headers=token)
        served += last.status_code == 200
    console.print(f"   760 reads sent: [green]{served} served[/], [red]{760 - served} refused[/]; the last response:")
    expect(served == 750, f"750 reads are served, not {served}")
    show(last, 429, body=True)
    return token


async def show_override(client: httpx.AsyncClient, token: dict[str, str], admin: str) -> None:
    step(3, "an override: the refused token is raised to 2000/minute")
    wanted = {"policy": "token-reads", "token": token["authorization"].removeprefix("Bearer "), "rate": "2000/minute"}
    show(await client.put("/internal/overrides", json=wanted, headers={"x-admin-key": admin}), 200)
    show(await client.get("/api/agents", headers=token), 200)


async def show_retry_after(client: httpx.AsyncClient) -> None:
    step(4, "a client that waits exactly Retry-After is admitted (5 per 3 seconds)")
    token = bearer(uuid4().hex[:6])
    for _ in range(5):
        await client.get("/api/search", headers=token)
    refused = show(await client.get("/api/search", headers=token), 429)
    wait = int(refused.headers["retry-after"])
    with console.status(f"   waiting {wait} s, as Retry-After says"):
        await asyncio.sleep(wait)
    show(await client.get("/api/search", headers=token), 200)


async def show_organization(client: httpx.AsyncClient) -> None:
    step(5, "the organization's limit (here 10/minute) refuses its second token")
    org = uuid4().hex[:6]
    first, second = bearer(org, "trial"), bearer(org, "trial")
    for _ in range(10):
        await client.get("/api/agents", headers=first)
    refused = show(await client.get("/api/agents", headers=second), 429, body=True)
    expect(refused.headers["x-ratelimit-scope"] == "org", "X-RateLimit-Scope names the organization")


async def show_quota(client: httpx.AsyncClient) -> None:
    step(6, "a monthly quota (here 20 requests) is used up: 403, without Retry-After")
    token = bearer(uuid4().hex[:6], "starter")
    for _ in range(20):
        await client.get("/api/agents", headers=token)
    refused = show(await client.get("/api/agents", headers=token), 403, body=True)
    expect("retry-after" not in refused.headers, "no Retry-After")
    expect("x-ratelimit-remaining" not in refused.headers, "no Remaining")


async def show_health(client: httpx.AsyncClient) -> None:
    step(7, "a health check is exempt, and has no rate-limit headers")
    response = show(await client.get("/healthz"), 200)
    expect(not any(name.startswith("x-ratelimit") for name in response.headers), "no rate-limit headers")


async def show_overload(store: str) -> None:
    step(8, "overload: backfill at 5 times the capacity, and people are still served")
    expect(
        await overload.show(store, console, seconds=4), "people are served, and the backfill gets 429 with Retry-After"
    )


def step(number: int, text: str) -> None:
    console.print()
    console.print(Rule(f"[bold]{number}. {text}[/]", align="left", style="cyan"))


def show(response: httpx.Response | None, status: int, *, body: bool = False) -> httpx.Response:
    if response is None:
        raise DemoError("no response")
    color = "green" if response.is_success else "red"
    request = response.request
    console.print(
        f"   {request.method} {request.url.path} [bold {color}]{response.status_code}[/] {response.reason_phrase}"
    )
    for name, value in response.headers.items():
        if name.startswith(_SHOWN):
            console.print(f"     [cyan]{title(name)}[/]: {value}{when(name, value)}")
    if body:
        shown = JSON(json.dumps(response.json()))
        shown.text.no_wrap, shown.text.overflow = False, "fold"
        console.print(Panel(shown, border_style=color, expand=False))
    expect(response.status_code == status, f"status {status}, not {response.status_code}")
    return response


def title(name: str) -> str:
    return name.title().replace("Ratelimit", "RateLimit")


def when(name: str, value: str) -> str:
    if name != "x-ratelimit-reset":
        return ""
    moment = datetime.fromtimestamp(int(value), UTC)
    shown = f"{moment:%H:%M:%S}" if moment.date() == datetime.now(UTC).date() else f"{moment:%Y-%m-%d %H:%M:%S}"
    return f" [dim]({shown} UTC)[/]"


def expect(holds: object, promise: str) -> None:
    if not holds:
        raise DemoError(promise)


if __name__ == "__main__":
    sys.exit(main())
