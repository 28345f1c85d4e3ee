"""The main job, shown: starts `three_layers.py` under uvicorn, drives it over HTTP and tells what happens."""

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

from examples import overload
from examples.serving import DemoError, serving
from ratelimit import RateLimitSettings

console = Console(highlight=False)

_SHOWN = ("x-ratelimit-", "retry-after", "cache-control", "content-type")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="memory://", help="where limits are counted, such as redis://localhost")
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
        serving("examples.three_layers:app", RATELIMIT_STORE=store, ADMIN_KEY=admin) as url,
        httpx.AsyncClient(base_url=url, timeout=10) as client,
    ):
        where = "this process's memory" if store.startswith("memory") else "Redis"
        console.print(Panel(f"examples/three_layers.py is up under uvicorn, counting in [bold]{where}[/]"))
        await show_success(client)
        refused = await show_burst_and_refusal(client)
        await show_override(client, refused, admin)
        await show_honest_wait(client)
        await show_organization(client)
        await show_quota(client)
        await show_health(client)
    await show_overload(store)
    console.print(Rule(style="green"))
    console.print(
        "[bold green]all as promised.[/] Next: [bold]make serve[/] leaves it running; README.md has the rest."
    )


async def check_store(store: str) -> None:
    """Fail before anything is started: a server that cannot reach its store serves all the same."""
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
        raise DemoError(f"no Redis answers there ({error}); start one with redis-server, or leave STORE out") from None
    finally:
        await client.aclose()


def bearer(org: str, plan: str = "team") -> dict[str, str]:
    """Make up a token; new ones each time, so that a demo on a shared Redis starts with full budgets."""
    return {"authorization": f"Bearer tk_{org}_{plan}_{uuid4().hex[:8]}"}


async def show_success(client: httpx.AsyncClient) -> None:
    step(1, "a success, with its headers; reads and writes are counted apart")
    token = bearer(uuid4().hex[:6])
    read = show(await client.get("/api/agents", headers=token), 200)
    write = show(await client.post("/api/agents", headers=token), 201)
    expect(read.headers["x-ratelimit-limit"] == "600", "600 reads a minute")
    expect(write.headers["x-ratelimit-remaining"] == "119", "119 writes are left after one")


async def show_burst_and_refusal(client: httpx.AsyncClient) -> dict[str, str]:
    step(2, "a burst: 600/minute and 25 % more, then the refusal")
    token, served, last = bearer(uuid4().hex[:6]), 0, None
    for _ in track(range(760), description="   760 reads as fast as they go", console=console, transient=True):
        last = await client.get("/api/agents", headers=token)
        served += last.status_code == 200
    console.print(f"   760 reads sent: [green]{served} served[/], [red]{760 - served} refused[/]; the last answer:")
    expect(served == 750, f"750 are served, not {served}")
    show(last, 429, body=True)
    return token


async def show_override(client: httpx.AsyncClient, token: dict[str, str], admin: str) -> None:
    step(3, "the same token, raised to 2000/minute while it is being refused")
    wanted = {"policy": "token-reads", "token": token["authorization"].removeprefix("Bearer "), "rate": "2000/minute"}
    show(await client.put("/internal/overrides", json=wanted, headers={"x-admin-key": admin}), 200)
    show(await client.get("/api/agents", headers=token), 200)


async def show_honest_wait(client: httpx.AsyncClient) -> None:
    step(4, "who waits exactly Retry-After is admitted (5 per 3 seconds)")
    token = bearer(uuid4().hex[:6])
    for _ in range(5):
        await client.get("/api/search", headers=token)
    refused = show(await client.get("/api/search", headers=token), 429)
    wait = int(refused.headers["retry-after"])
    with console.status(f"   waiting {wait} s, as told"):
        await asyncio.sleep(wait)
    show(await client.get("/api/search", headers=token), 200)


async def show_organization(client: httpx.AsyncClient) -> None:
    step(5, "the organization's limit (here 10/minute) stops its second token")
    org = uuid4().hex[:6]
    first, second = bearer(org, "trial"), bearer(org, "trial")
    for _ in range(10):
        await client.get("/api/agents", headers=first)
    refused = show(await client.get("/api/agents", headers=second), 429, body=True)
    expect(refused.headers["x-ratelimit-scope"] == "org", "it is the organization's limit that speaks")


async def show_quota(client: httpx.AsyncClient) -> None:
    step(6, "a monthly quota (here 20 requests) is used up: 403, nothing to retry")
    token = bearer(uuid4().hex[:6], "starter")
    for _ in range(20):
        await client.get("/api/agents", headers=token)
    refused = show(await client.get("/api/agents", headers=token), 403, body=True)
    expect("retry-after" not in refused.headers, "no Retry-After")
    expect("x-ratelimit-remaining" not in refused.headers, "no Remaining")


async def show_health(client: httpx.AsyncClient) -> None:
    step(7, "a health check is free, and carries no rate-limit header")
    answer = show(await client.get("/healthz"), 200)
    expect(not any(name.startswith("x-ratelimit") for name in answer.headers), "no rate-limit header")


async def show_overload(store: str) -> None:
    step(8, "overload: backfill at 5 times the capacity, and people do not notice")
    expect(await overload.show(store, console, seconds=4), "people are served, and the flood is told 429 and when")


def step(number: int, text: str) -> None:
    console.print()
    console.print(Rule(f"[bold]{number}. {text}[/]", align="left", style="cyan"))


def show(answer: httpx.Response | None, status: int, *, body: bool = False) -> httpx.Response:
    if answer is None:
        raise DemoError("no answer")
    colour = "green" if answer.is_success else "red"
    request = answer.request
    console.print(
        f"   {request.method} {request.url.path} [bold {colour}]{answer.status_code}[/] {answer.reason_phrase}"
    )
    for name, value in answer.headers.items():
        if name.startswith(_SHOWN):
            console.print(f"     [cyan]{title(name)}[/]: {value}{when(name, value)}")
    if body:
        shown = JSON(json.dumps(answer.json()))
        shown.text.no_wrap, shown.text.overflow = False, "fold"
        console.print(Panel(shown, border_style=colour, expand=False))
    expect(answer.status_code == status, f"{status}, not {answer.status_code}")
    return answer


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
