"""Webhooks at no more than 100 a second for each subscription, whatever happens: one of the workers is killed.

A receiver and two workers are started, some hundred webhooks for three subscriptions are queued in Redis Streams, and
in the middle one worker gets `kill -9`. Nothing is lost, and the pace is kept.   python -m examples.webhooks
"""

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import httpx
import redis.asyncio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.backfill import positive
from examples.deliveries import Deliveries
from examples.serving import DemoError, redis_server, serving

console = Console(highlight=False)
DEAD_ONES = 3
STREAM = f"webhooks:{uuid4().hex[:8]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", help="an address, such as redis://localhost (default: a server of its own)")
    parser.add_argument("--webhooks", type=positive, default=500, help="how many for two of the subscriptions")
    options = parser.parse_args()
    try:
        return asyncio.run(show(options.redis, options.webhooks))
    except (DemoError, redis.RedisError, ValueError) as error:
        console.print(f"[bold red]not as promised:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130


async def show(address: str | None, many: int) -> int:
    secret = uuid4().hex
    async with (
        redis_server(address) as url,
        serving("examples.receiver:app", SECRET=secret) as receiver,
        connected(url) as client,
    ):
        expected = {"one": many, "flaky": many, "dead": DEAD_ONES}
        queue = Deliveries(client, "enqueuer", STREAM)
        await enqueue(queue, receiver, expected)
        with worker(url, "first", secret) as first, worker(url, "second", secret) as second:
            await watch(client, sum(expected.values()), first, second)
        async with httpx.AsyncClient() as http:
            report = (await http.get(f"{receiver}/report")).json()
        buried = await client.xlen(queue.dead)
    return tell(report, expected, buried)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    client = redis.asyncio.Redis.from_url(url)
    try:
        yield client
    finally:
        await client.delete(STREAM, f"{STREAM}:dead")
        await client.aclose()


@contextmanager
def worker(url: str, name: str, secret: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(  # noqa: S603 - our own worker, with our own arguments
        [sys.executable, "-m", "examples.deliveries", url, name, STREAM],
        env={**os.environ, "SECRET": secret, "LEASE": "1"},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def enqueue(queue: Deliveries, receiver: str, expected: dict[str, int]) -> None:
    await queue.prepare()
    for number in range(max(expected.values())):
        for subscription, many in expected.items():
            if number < many:
                event = {"type": "invoice.paid", "subscription": subscription, "number": number}
                await queue.enqueue(subscription, f"{receiver}/hooks/{subscription}", event)
    console.print(f"{sum(expected.values())} webhooks are queued for {len(expected)} subscriptions")


async def watch(client: Any, total: int, victim: "subprocess.Popen[bytes]", other: "subprocess.Popen[bytes]") -> None:
    """Wait until the queue is empty; when a third is delivered, kill a worker."""
    columns = (TextColumn("   {task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("delivering", total=total)
        while left := await client.xlen(STREAM):
            progress.update(task, completed=total - left)
            if victim.poll() is None and left < total * 2 / 3:
                victim.kill()
                progress.console.print(f"   [red]kill -9[/] for the first worker, at {total - left} of {total}")
                progress.update(task, description="delivering, by one worker")
            if other.poll() is not None:
                msg = "the second worker has ended; what it said stands above"
                raise DemoError(msg)
            await asyncio.sleep(0.05)
        progress.update(task, completed=total)


def tell(report: dict[str, Any], expected: dict[str, int], buried: int) -> int:
    table = Table("subscription", "queued", "received", "sent", "busiest 0.1 s", "busiest 1 s")
    for name, seen in report["subscriptions"].items():
        let_go = [f"{turns} ({arrived} came)" for turns, arrived in zip(seen["busiest"], seen["arrived"], strict=True)]
        table.add_row(name, str(expected[name]), str(seen["received"]), str(seen["requests"]), *let_go)
    console.print(table)
    console.print(
        "   100 a second are one every 10 ms, and so 10 or 11 in 0.1 s, from all workers together; in brackets what the\n"
        "   receiver saw, which has the network's and the machine's delays in it\n"
        f"   {report['duplicates']} came twice (under way at the kill), {report['forged']} forged, {buried} dead letters"
    )
    seen = report["subscriptions"]
    as_promised = (
        all(seen[name]["received"] == many for name, many in expected.items() if name != "dead")
        and all(one["busiest"][0] <= 11 and one["busiest"][1] <= 101 for one in seen.values())
        and (buried, report["forged"]) == (expected["dead"], 0)
    )
    console.print("[bold green]all as promised.[/]" if as_promised else "[bold red]not as promised[/]")
    return 0 if as_promised else 1


if __name__ == "__main__":
    sys.exit(main())
