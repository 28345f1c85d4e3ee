"""A backfill that throttles itself: it delivers 2,000 records to a limited server, as fast as the server's headers allow.

The example starts the server (records.py), unless `--url` names one. The client reads the limit from the response headers
and holds requests back, so that the server refuses none. A journal records the delivered ones: after Ctrl-C, the same
command continues where it was stopped.   python -m examples.client.backfill --journal backfill.journal
"""

import argparse
import asyncio
import math
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from examples._support.serving import DemoError, serving
from ratelimit import Rate
from ratelimit.client import DEFAULT_RETRY_POLICY, AsyncRetryTransport, WaitEvent

console = Console(highlight=False)

POLICY = replace(DEFAULT_RETRY_POLICY, retries=20)


@dataclass
class Totals:
    """Counts of one run."""

    delivered: int = 0
    refused: int = 0
    seconds: float = 0.0


class Journal:
    """The keys of the delivered records, one per line; an incomplete last line is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text() if path.exists() else ""
        complete = text[: text.rfind("\n") + 1]
        if any(not line.startswith("rec_") for line in text.splitlines()):
            raise DemoError(f"{path} is not a journal of a backfill")
        if complete != text:
            path.write_text(complete)
        self.delivered = set(complete.split())

    def open(self) -> IO[str]:
        return self.path.open("a", buffering=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=positive, default=2000)
    parser.add_argument("--workers", type=positive, default=8, help="concurrent requests")
    parser.add_argument("--rate", type=rate, default=Rate.parse("500/2 seconds"), help="the server's limit")
    parser.add_argument("--journal", type=Path, help="a file that records what was delivered (default: none)")
    parser.add_argument("--url", help="a server that is already running")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        try:
            journal = Journal(options.journal or Path(folder) / "journal")
            return asyncio.run(backfill(options, journal))
        except KeyboardInterrupt:
            hint = "run it again to continue" if options.journal else "with --journal, the next run would continue here"
            console.print(f"[yellow]stopped[/]; {hint}")
            return 130
        except (DemoError, OSError, httpx.HTTPError, ExceptionGroup) as error:
            first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            console.print(f"[bold red]not as promised:[/] {first}")
            return 1


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text!r}")
    return int(text)


def rate(text: str) -> Rate:
    try:
        return Rate.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def backfill(options: argparse.Namespace, journal: Journal) -> int:
    records = [f"rec_{number:05}" for number in range(options.records)]
    left = [key for key in records if key not in journal.delivered]
    if journal.delivered:
        console.print(f"{len(records) - len(left)} are delivered already, {len(left)} to go")
    async with AsyncExitStack() as stack:
        url = options.url or await stack.enter_async_context(server(options.rate, journal.path))
        console.print(f"{len(left)} records to {url}, whose limit is [bold]{options.rate}[/]")
        totals = await deliver(left, url, options.workers, journal)
        async with httpx.AsyncClient() as client:
            report = (await client.get(f"{url}/records")).json()
    return print_report(totals, report, options)


@asynccontextmanager
async def server(rate: Rate, journal: Path) -> AsyncIterator[str]:
    # The server's database lies beside the journal, so that both survive.
    async with serving("examples.client.records:app", RATE=str(rate), RECORDS=f"{journal}.records") as url:
        yield url


async def deliver(keys: list[str], url: str, workers: int, journal: Journal) -> Totals:
    totals, began = Totals(), asyncio.get_running_loop().time()
    columns = (TextColumn("   {task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, journal.open() as file:
        task = progress.add_task("delivering", total=len(keys))
        transport = AsyncRetryTransport(policy=POLICY, on_wait=lambda event: show_wait(progress, task, event))
        headers = {"authorization": "Bearer backfill"}
        async with (
            httpx.AsyncClient(transport=transport, base_url=url, headers=headers, timeout=30) as client,
            asyncio.TaskGroup() as group,
        ):
            remaining = iter(keys)

            async def work() -> None:
                for key in remaining:
                    answer = await client.post("/records", json={"id": key}, headers={"idempotency-key": key})
                    answer.raise_for_status()
                    file.write(f"{key}\n")
                    totals.delivered += 1
                    totals.refused += answer.extensions["ratelimit"]["attempts"] - 1
                    progress.update(task, advance=1, description="delivering")

            for _ in range(workers):
                group.create_task(work())
    totals.seconds = asyncio.get_running_loop().time() - began
    return totals


def show_wait(progress: Progress, task: TaskID, event: WaitEvent) -> None:
    seconds = f" {event.seconds_left:.1f} s" if math.isfinite(event.seconds_left) else ""
    progress.update(task, description=f"waiting{seconds} for the server's limit")


def print_report(totals: Totals, report: dict[str, int], options: argparse.Namespace) -> int:
    allowed, repeated = options.rate, report["sent"] - report["stored"]
    # So many whole windows pass before the server admits the last record.
    minimum = (-(-totals.delivered // allowed.limit) - 1) * allowed.period if totals.delivered else 0
    console.print(
        f"   delivered [bold]{totals.delivered}[/] in {totals.seconds:.1f} s (the limit alone takes {minimum} s), "
        f"refused [bold]{totals.refused}[/]\n"
        f"   the server has stored [bold]{report['stored']}[/] records"
        + (f"; {repeated} were in flight when it was stopped: sent twice, stored once" if repeated else "")
    )
    as_promised = report["stored"] == options.records and totals.refused <= 1
    console.print("[bold green]all as promised.[/]" if as_promised or options.url else "[bold red]not as promised[/]")
    return 0 if as_promised or options.url else 1


if __name__ == "__main__":
    sys.exit(main())
