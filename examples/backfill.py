"""A backfill that throttles itself: 2,000 records through a limited server, as fast as its headers allow.

The server (examples/records.py) is started beside it, unless `--url` names one. What it says of its limit holds back
the next requests, so that none is refused; what is delivered is noted in a journal, so that Ctrl-C loses nothing:
run it again, and it goes on where it was.   python -m examples.backfill --journal backfill.journal
"""

import argparse
import asyncio
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

from examples.serving import DemoError, serving
from ratelimit import Rate
from ratelimit.client import EXPONENTIAL, AsyncRetryTransport, Wait

console = Console(highlight=False)

POLICY = replace(EXPONENTIAL, retries=20)


@dataclass
class Totals:
    """What came of it."""

    delivered: int = 0
    refused: int = 0
    seconds: float = 0.0


class Journal:
    """The keys of what was delivered, a line each; a line that was cut off is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if any(not line.startswith("rec_") for line in text.splitlines()):
            raise DemoError(f"{path} is no journal of a backfill")
        if whole != text:
            path.write_text(whole)
        self.done = set(whole.split())

    def open(self) -> IO[str]:
        return self.path.open("a", buffering=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=positive, default=2000)
    parser.add_argument("--workers", type=positive, default=8, help="requests at a time")
    parser.add_argument("--rate", type=rate, default=Rate.parse("500/2 seconds"), help="what the server allows")
    parser.add_argument("--journal", type=Path, help="a file to note what was delivered (default: it is forgotten)")
    parser.add_argument("--url", help="a server that runs already")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        try:
            journal = Journal(options.journal or Path(folder) / "journal")
            return asyncio.run(backfill(options, journal))
        except KeyboardInterrupt:
            console.print(
                f"[yellow]stopped[/]; {'run it again to go on' if options.journal else 'with a --journal it goes on'}"
            )
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
    left = [key for key in records if key not in journal.done]
    if journal.done:
        console.print(f"{len(records) - len(left)} are delivered already, {len(left)} to go")
    async with AsyncExitStack() as stack:
        url = options.url or await stack.enter_async_context(server(options.rate, journal.path))
        console.print(f"{len(left)} records to {url}, which takes [bold]{options.rate}[/]")
        totals = await deliver(left, url, options.workers, journal)
        async with httpx.AsyncClient() as client:
            report = (await client.get(f"{url}/records")).json()
    return tell(totals, report, options)


@asynccontextmanager
async def server(rate: Rate, journal: Path) -> AsyncIterator[str]:
    # What the server has stored lies beside the journal, so that both survive.
    async with serving("examples.records:app", RATE=str(rate), RECORDS=f"{journal}.records") as url:
        yield url


async def deliver(left: list[str], url: str, workers: int, journal: Journal) -> Totals:
    totals, begun = Totals(), asyncio.get_running_loop().time()
    columns = (TextColumn("   {task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, journal.open() as file:
        task = progress.add_task("delivering", total=len(left))
        transport = AsyncRetryTransport(policy=POLICY, on_wait=lambda wait: show_wait(progress, task, wait))
        headers = {"authorization": "Bearer backfill"}
        async with (
            httpx.AsyncClient(transport=transport, base_url=url, headers=headers, timeout=30) as client,
            asyncio.TaskGroup() as group,
        ):
            keys = iter(left)

            async def work() -> None:
                for key in keys:
                    answer = await client.post("/records", json={"id": key}, headers={"idempotency-key": key})
                    answer.raise_for_status()
                    file.write(f"{key}\n")
                    totals.delivered += 1
                    totals.refused += answer.extensions["ratelimit"]["attempts"] - 1
                    progress.update(task, advance=1, description="delivering")

            for _ in range(workers):
                group.create_task(work())
    totals.seconds = asyncio.get_running_loop().time() - begun
    return totals


def show_wait(progress: Progress, task: TaskID, wait: Wait) -> None:
    seconds = "" if wait.left == float("inf") else f" {wait.left:.1f} s"
    progress.update(task, description=f"waiting{seconds}, as the server says")


def tell(totals: Totals, report: dict[str, int], options: argparse.Namespace) -> int:
    allowed, again = options.rate, report["sent"] - report["stored"]
    # So many windows have to go by before the last of them is let through.
    least = (-(-totals.delivered // allowed.limit) - 1) * allowed.period if totals.delivered else 0
    console.print(
        f"   delivered [bold]{totals.delivered}[/] in {totals.seconds:.1f} s (the limit alone takes {least} s), "
        f"refused [bold]{totals.refused}[/]\n"
        f"   the server has stored [bold]{report['stored']}[/] records"
        + (f"; {again} that were under way when it was stopped came twice, and are stored once" if again else "")
    )
    as_promised = report["stored"] == options.records and totals.refused <= 1
    console.print("[bold green]all as promised.[/]" if as_promised or options.url else "[bold red]not as promised[/]")
    return 0 if as_promised or options.url else 1


if __name__ == "__main__":
    sys.exit(main())
