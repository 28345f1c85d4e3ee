"""Run every fault under a steady load from four worker processes, and write `docs/faults.md` with its picture."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.faults.measures import Measured, measure
from benchmarks.faults.proxy import Proxy
from benchmarks.faults.report import write
from benchmarks.faults.scenarios import SCENARIOS, Scenario
from benchmarks.faults.settings import settings
from ratelimit import Identity, Limiter
from tests.support.redis_server import RedisServer

ROOT: Final = Path(__file__).parent.parent.parent
WORKERS, PACE, BEFORE, DURING, AFTER, STARTING = 4, 100, 4.0, 4.0, 6.0, 3.0
CHECKS, AT_ONCE = 100_000, 16


async def run(scenario: Scenario, folder: Path) -> Measured:
    """Let four workers ask for fourteen seconds, with the fault in the middle."""
    place = await scenario.where(folder)
    try:
        begin = time.monotonic() + STARTING
        workers = [await _worker(number, scenario, place.url, begin, folder) for number in range(WORKERS)]
        await _until(begin + BEFORE)
        await scenario.begin(place)
        await _until(begin + BEFORE + DURING)
        await scenario.end(place)
        ended = time.monotonic()
        for worker in workers:
            if await worker.wait():
                raise RuntimeError(f"{scenario.name}: a worker failed")
        answers = [json.loads((folder / f"{number}.json").read_text()) for number in range(WORKERS)]
        counted = await _counted(place.direct) if scenario.keeps else None
    finally:
        await place.stop()
    return measure(scenario, answers, counted, (begin, begin + BEFORE, ended))


async def _worker(number: int, scenario: Scenario, url: str, begin: float, folder: Path) -> asyncio.subprocess.Process:
    shift = scenario.shifts[number % len(scenario.shifts)]
    told = [url, begin, BEFORE + DURING + AFTER, PACE, folder / f"{number}.json", shift]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.faults.worker", *map(str, told), cwd=ROOT
    )


async def _until(instant: float) -> None:
    await asyncio.sleep(max(0.0, instant - time.monotonic()))


async def checks() -> str:
    """Return what 100,000 checks did to the counter while one reply in twenty was lost."""
    with TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        proxy = Proxy(server.port)
        await proxy.start()
        limiter, admitted, degraded = Limiter(settings(f"redis://127.0.0.1:{proxy.port}/0")), 0, 0
        await limiter.start()
        proxy.mode, proxy.share = "lost", 0.05

        async def ask() -> None:
            nonlocal admitted, degraded
            for _ in range(CHECKS // AT_ONCE):
                decision = await limiter.consume("served", Identity(org="acme"))
                admitted += decision.allowed
                degraded += decision.degraded

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        proxy.mode = "pass"
        await limiter.aclose()
        counted = await _counted(server.url)
        await proxy.stop()
        server.stop()
    return (
        f"{admitted:,} checks, {AT_ONCE} at a time, while one reply in twenty was lost: {degraded:,} decided by the "
        f"worker itself, and counted {counted - admitted:+d} times too often."
    )


async def _counted(url: str) -> int:
    """Return what the store says of the quota."""
    async with Limiter(settings(url).model_copy(update={"store_timeout": 5.0})) as limiter:
        (served,) = await limiter.usage(Identity(token="t", org="acme"))
        return served.used


def main(names: Sequence[str]) -> None:
    """Run all, or those whose name contains one of `names`, and write the report where all were run."""
    wanted = [each for each in SCENARIOS if not names or any(name in each.name for name in names)]
    results = []
    for number, scenario in enumerate(wanted):
        print(f"{number + 1} of {len(wanted)}: {scenario.name}", flush=True)
        with TemporaryDirectory() as folder:
            results.append(asyncio.run(run(scenario, Path(folder))))
        print(f"   {results[-1].line()}", flush=True)
    if not names:
        said = asyncio.run(checks())
        print(said)
        write(results, said, ROOT / "docs")


if __name__ == "__main__":
    main(sys.argv[1:])
