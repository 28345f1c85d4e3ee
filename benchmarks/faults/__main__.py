"""Run faults under a steady load from four worker processes, and write `docs/faults.md` with its picture after each.

`python -m benchmarks.faults [--topology NAME]… [--only TEXT]… [--missing]`: all faults on all topologies, or those on the
topologies named, whose names contain one of the texts, that were not measured yet.
"""

import asyncio
import sys
import time
import traceback
from argparse import ArgumentParser, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.faults.deployments import TOPOLOGIES
from benchmarks.faults.fault import Fault
from benchmarks.faults.fleet import ROOT, Fleet
from benchmarks.faults.measures import FaultResult, measure
from benchmarks.faults.proxy import Proxy
from benchmarks.faults.records import Records
from benchmarks.faults.report import DRAWN, draw, possible, write
from benchmarks.faults.settings import settings
from benchmarks.faults.steps import Stage
from ratelimit import Identity, Limiter
from tests.support.redis_server import RedisServer

BEFORE, AFTER = 4.25, 6.0
CHECKS, CONCURRENCY = 100_000, 16
DOCS: Final = ROOT / "docs"


async def run(fault: Fault, topology: str, folder: Path) -> FaultResult:
    """Start a deployment, and run four workers for fourteen seconds with the fault in the middle."""
    store = await TOPOLOGIES[topology](folder, fault.setup)
    fleet = Fleet(store.url, folder, BEFORE + fault.seconds + AFTER, fault.variant, fault.clock_shifts)
    try:
        await fleet.start()
        ended = await _strike(fault, Stage(store, fleet), fleet.begin + BEFORE)
        found = await fleet.found()
        counted = await _counted(store.url)
    finally:
        await fleet.stop()
        await store.stop()
    row = measure(fault, topology, found, counted, (fleet.begin, fleet.begin + BEFORE, ended))
    if (topology, fault.name) not in DRAWN:
        row.timeline.clear()
    return row


async def _strike(fault: Fault, stage: Stage, at: float) -> float:
    """Let the fault happen at an instant, and return the instant of its end."""
    try:
        await _until(at)
        await fault.begin(stage)
        await _until(at + fault.seconds)
        await fault.end(stage)
    finally:
        if stage.activity is not None:
            stage.activity.cancel()
        if stage.admin is not None:
            stage.admin.close()
    return time.monotonic()


async def _until(instant: float) -> None:
    await asyncio.sleep(max(0.0, instant - time.monotonic()))


async def checks() -> str:
    """Make 100,000 checks while one reply in twenty is lost, and return a sentence about the counter."""
    with TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        proxy = Proxy(server.port)
        await proxy.start()
        limiter, admitted, degraded = Limiter(settings(f"redis://127.0.0.1:{proxy.port}/0")), 0, 0
        await limiter.start()
        proxy.mode, proxy.share = "lost", 0.05

        async def make_checks() -> None:
            nonlocal admitted, degraded
            for _ in range(CHECKS // CONCURRENCY):
                decision = await limiter.consume("served", Identity(org="acme"))
                admitted += decision.allowed
                degraded += decision.degraded

        await asyncio.gather(*(make_checks() for _ in range(CONCURRENCY)))
        proxy.mode = "pass"
        await limiter.aclose()
        counted = await _counted(server.url)
        await proxy.stop()
        server.stop()
    return (
        f"{admitted:,} checks, {CONCURRENCY} at a time, while one reply in twenty was lost: the worker decided {degraded:,} "
        f"locally, and the count of the store differs from the admitted checks by {counted - admitted}."
    )


async def _counted(url: str) -> int:
    """Return the count of the quota in the store."""
    async with Limiter(settings(url).model_copy(update={"store_timeout": 5.0})) as limiter:
        (served,) = await limiter.usage(Identity(token="t", org="acme"))
        return served.used


def wanted(asked: Namespace, records: Records) -> list[tuple[str, Fault]]:
    """Return what is asked for: topologies with their faults."""
    return [
        (topology, fault)
        for topology, fault in possible()
        if (not asked.topology or topology in asked.topology)
        and (not asked.only or any(text in fault.name for text in asked.only))
        and not (asked.missing and records.find(topology, fault.name))
    ]


def measured(topology: str, fault: Fault) -> FaultResult | None:
    """Run a fault and print its figures; return `None` where it could not be run."""
    with TemporaryDirectory() as folder:
        try:
            row = asyncio.run(run(fault, topology, Path(folder)))
        except Exception:  # noqa: BLE001 - one fault that cannot be run stops no other
            traceback.print_exc()
            return None
    print(f"   {row.line()}{'' if row.is_well(fault) else '   <-- NOT WELL'}", flush=True)
    return row


def main(asked: Namespace) -> bool:
    """Run all faults that are asked for, write the report after each, and return whether all could be run."""
    records = Records()
    records.keep([(topology, fault.name) for topology, fault in possible()])
    todo, began, done = wanted(asked, records), time.monotonic(), 0
    for number, (topology, fault) in enumerate(todo):
        print(f"{number + 1} of {len(todo)}, {time.monotonic() - began:.0f} s: {topology}, {fault.name}", flush=True)
        if (row := measured(topology, fault)) is not None:
            done += 1
            records.add(row)
            write(records, DOCS)
    if not asked.only and not asked.topology and not (asked.missing and records.checks):
        records.add_checks(asyncio.run(checks()))
        print(records.checks)
    write(records, DOCS)
    draw(records, DOCS)
    return done == len(todo)


def arguments() -> Namespace:
    """Return what is asked for on the command line."""
    parser = ArgumentParser(
        prog="python -m benchmarks.faults", description="Measure the limiter while its store fails."
    )
    parser.add_argument("--topology", action="append", choices=list(TOPOLOGIES), help="only on this one (repeatable)")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only faults whose name has this (repeatable)")
    parser.add_argument("--missing", action="store_true", help="only what docs/faults.md does not have yet")
    return parser.parse_args()


if __name__ == "__main__":
    if not main(arguments()):
        sys.exit("some faults could not be run; --missing runs them again")
