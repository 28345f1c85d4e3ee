"""Webhooks at no more than 100 a second for each subscription, also when a worker is killed.

The example starts a receiver and two workers, and queues some hundred webhooks for three subscriptions in a Redis stream.
Meanwhile it kills one worker with `kill -9`. No webhook is lost, and the pace holds.   python -m examples.webhooks.webhooks
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

from examples._support.serving import DemoError, redis_server, serving
from examples.client.backfill import positive
from examples.webhooks.deliveries import Deliveries

console = Console(highlight=False)
UNDELIVERABLE = 3
STREAM = f"webhooks:{uuid4().hex[:8]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", help="a URL, such as redis://localhost (default: start a server)")
    parser.add_argument("--webhooks", type=positive, default=500, help="webhooks for each of two subscriptions")
    options = parser.parse_args()
    try:
        return asyncio.run(show(options.redis, options.webhooks))
    except (DemoError, redis.RedisError, ValueError) as error:
        console.print(f"[bold red]not as promised:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130


async def show(address: str | None, count: int) -> int:
    secret = uuid4().hex
    async with (
        redis_server(address) as url,
        serving("examples.webhooks.receiver:app", SECRET=secret) as receiver,
        connected(url) as client,
    ):
        expected = {"one": count, "flaky": count, "dead": UNDELIVERABLE}
        queue = Deliveries(client, "enqueuer", STREAM)
        await enqueue(queue, receiver, expected)
        with worker(url, "first", secret) as first, worker(url, "second", secret) as second:
            await watch(client, sum(expected.values()), first, second)
        async with httpx.AsyncClient() as http:
            report = (await http.get(f"{receiver}/report")).json()
        dead_letters = await client.xlen(queue.dead_letters)
    return print_report(report, expected, dead_letters)


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
        [sys.executable, "-m", "examples.webhooks.deliveries", url, name, STREAM],
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
        for subscription, count in expected.items():
            if number < count:
                event = {"type": "invoice.paid", "subscription": subscription, "number": number}
                await queue.enqueue(subscription, f"{receiver}/hooks/{subscription}", event)
    console.print(f"{sum(expected.values())} webhooks are queued for {len(expected)} subscriptions")


async def watch(client: Any, total: int, victim: "subprocess.Popen[bytes]", other: "subprocess.Popen[bytes]") -> None:
    """Wait until the queue is empty; kill a worker when a third of the webhooks is delivered."""
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
                msg = "the second worker has ended; its output is above"
                raise DemoError(msg)
            await asyncio.sleep(0.05)
        progress.update(task, completed=total)


def print_report(report: dict[str, Any], expected: dict[str, int], dead_letters: int) -> int:
    table = Table("subscription", "queued", "received", "sent", "busiest 0.1 s", "busiest 1 s")
    subscriptions = report["subscriptions"]
    for name, counts in subscriptions.items():
        busiest = [f"{sent} ({arrived})" for sent, arrived in zip(counts["started"], counts["arrived"], strict=True)]
        table.add_row(name, str(expected[name]), str(counts["received"]), str(counts["requests"]), *busiest)
    console.print(table)
    console.print(
        "   100 a second is one every 10 ms, so 10 or 11 in 0.1 s, over all workers; in brackets the arrivals at the\n"
        "   receiver, which include the delays of the network and the machine\n"
        f"   {report['duplicates']} arrived twice (in flight at the kill), {report['forged']} forged, {dead_letters} dead letters"
    )
    as_promised = (
        all(subscriptions[name]["received"] == count for name, count in expected.items() if name != "dead")
        # In 0.1 s there are more where a machine stood still so long: what it missed starts with what is next.
        and all(each["started"][1] <= 111 for each in subscriptions.values())
        and (dead_letters, report["forged"]) == (expected["dead"], 0)
    )
    console.print("[bold green]all as promised.[/]" if as_promised else "[bold red]not as promised[/]")
    return 0 if as_promised else 1


if __name__ == "__main__":
    sys.exit(main())
