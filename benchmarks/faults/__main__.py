"""Run every fault under a steady load from four worker processes, and write `docs/faults.md` with its picture."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.faults.measures import FaultResult, measure
from benchmarks.faults.proxy import Proxy
from benchmarks.faults.report import write
from benchmarks.faults.scenarios import SCENARIOS, Scenario
from benchmarks.faults.settings import settings
from ratelimit import Identity, Limiter
from tests.support.redis_server import RedisServer

ROOT: Final = Path(__file__).parent.parent.parent
WORKERS, PACE, BEFORE, DURING, AFTER, STARTING = 4, 100, 4.0, 4.0, 6.0, 3.0
CHECKS, CONCURRENCY = 100_000, 16


async def run(scenario: Scenario, folder: Path) -> FaultResult:
    """Run four workers for fourteen seconds, with the fault in the middle."""
    deployment = await scenario.deploy(folder)
    try:
        begin = time.monotonic() + STARTING
        workers = [await _worker(number, scenario, deployment.url, begin, folder) for number in range(WORKERS)]
        await _until(begin + BEFORE)
        await scenario.begin(deployment)
        await _until(begin + BEFORE + DURING)
        await scenario.end(deployment)
        ended = time.monotonic()
        for worker in workers:
            if await worker.wait():
                raise RuntimeError(f"{scenario.name}: a worker failed")
        found = [json.loads((folder / f"{number}.json").read_text()) for number in range(WORKERS)]
        counted = await _counted(deployment.direct) if scenario.keeps_data else None
    finally:
        await deployment.stop()
    return measure(scenario, found, counted, (begin, begin + BEFORE, ended))


async def _worker(number: int, scenario: Scenario, url: str, begin: float, folder: Path) -> asyncio.subprocess.Process:
    shift = scenario.clock_shifts[number % len(scenario.clock_shifts)]
    arguments = [url, begin, BEFORE + DURING + AFTER, PACE, folder / f"{number}.json", shift, scenario.variant]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.faults.worker", *map(str, arguments), cwd=ROOT
    )


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


def main(names: Sequence[str]) -> None:
    """Run all faults and write the report, or run only those whose name contains one of `names`."""
    wanted = [each for each in SCENARIOS if not names or any(name in each.name for name in names)]
    results = []
    for number, scenario in enumerate(wanted):
        print(f"{number + 1} of {len(wanted)}: {scenario.name}", flush=True)
        with TemporaryDirectory() as folder:
            results.append(asyncio.run(run(scenario, Path(folder))))
        print(f"   {results[-1].line()}", flush=True)
    if not names:
        sentence = asyncio.run(checks())
        print(sentence)
        write(results, sentence, ROOT / "docs")


if __name__ == "__main__":
    main(sys.argv[1:])
