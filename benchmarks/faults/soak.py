"""A soak: `python -m benchmarks.faults.soak [SECONDS [PAUSE]]`, five minutes by default, with 20 ms between two checks of a task.

Twelve worker processes check a rate, a quota and a concurrency limit through a proxy that cuts 3 % of the replies and holds
2 % of the commands back for 0.3 s; 30 % of the checks are cancelled on their way. At the end the store's count is compared
with what was served, and nothing may be left: no permit, no connection, no task.
"""

import asyncio
import json
import logging
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks.faults.proxy import Proxy
from ratelimit import Concurrency, Identity, Limit, Limiter, Quota, RateLimitSettings
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.redis_server import RedisServer

ROOT: Final = Path(__file__).parent.parent.parent
WORKERS, TASKS, SECONDS, PAUSE = 12, 4, 300.0, 0.02
CUT, LATE, CANCELLED = 0.03, 0.02, 0.3
WHO: Final = Identity(token="t", org="acme")


class Served(NamedTuple):
    """What a worker has done: checks begun, cancelled and admitted, and the tasks that were left at its end."""

    begun: int
    cancelled: int
    admitted: int
    tasks_left: int


def limiter_for(url: str, timeout: float = 0.1) -> Limiter:
    """Return a limiter with one policy of each kind; the rate refuses some of the checks."""
    return Limiter(
        RateLimitSettings(
            store=url,
            store_timeout=timeout,
            limits=[Limit(name="token", rate="1200/2s", per="token")],
            quotas=[Quota(name="served", limit=10**9, period="month", per="org")],
            concurrency=[Concurrency(name="slots", limit=100_000, per="org")],
        )
    )


async def work(url: str, seconds: float, pause: float, seed: int) -> Served:
    """Make checks from a few tasks, each after a pause, and cancel some of them."""
    limiter, chance = limiter_for(url), random.Random(seed)
    begun = cancelled = admitted = 0

    async def check() -> None:
        nonlocal admitted
        decision = await limiter.check(WHO)
        admitted += decision.allowed
        await limiter.finish(decision)

    async def check_again_and_again() -> None:
        nonlocal begun, cancelled
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            begun += 1
            task = asyncio.create_task(check())
            if chance.random() < CANCELLED:
                await asyncio.sleep(chance.random() * 0.004)
                task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            cancelled += isinstance(result, asyncio.CancelledError)
            await asyncio.sleep(pause)

    await asyncio.gather(*(check_again_and_again() for _ in range(TASKS)))
    await limiter.aclose()
    await asyncio.sleep(0)
    return Served(begun, cancelled, admitted, len(asyncio.all_tasks()) - 1)


async def count(url: str) -> tuple[int, int]:
    """Return what the store counts: served requests, and permits that are held."""
    async with limiter_for(url, 5.0) as limiter:
        names = ("served", "slots")
        charges = [
            limiter.resolver.named.charge(name, WHO, 1, limiter.clock(), method="GET", endpoint="*") for name in names
        ]
        request = StoreRequest([charge for charge in charges if charge is not None], Operation.USAGE)
        reply = await limiter.store.submit(request)
        (served, _, _), (held, _, _) = reply.readings
        return served, held


async def soak(seconds: float, pause: float) -> bool:
    """Run all workers, print what is left, and return whether it is nothing."""
    with TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        cutting = Proxy(server.port)
        await cutting.start()
        delaying = Proxy(cutting.port)
        await delaying.start()
        cutting.mode, cutting.share = "cut", CUT
        delaying.mode, delaying.share, delaying.delay = "late", LATE, 0.3
        url = f"redis://127.0.0.1:{delaying.port}/0"
        workers = [await _worker(url, seconds, pause, number) for number in range(WORKERS)]
        for second in range(0, round(seconds), 10):
            print(f"{second} of {seconds:.0f} s", flush=True)
            await asyncio.sleep(min(10.0, seconds - second))
        cutting.mode = delaying.mode = "pass"  # What closes last needs a store to write to.
        outputs = [await worker.communicate() for worker in workers]
        served = [Served(*json.loads(output)) for output, _ in outputs]
        await asyncio.sleep(0.5)
        connections = delaying.open_connections
        counted, held = await count(server.url)
        await delaying.stop()
        await cutting.stop()
        server.stop()
    admitted, tasks = sum(each.admitted for each in served), sum(each.tasks_left for each in served)
    print(
        f"{seconds:.0f} s, {WORKERS} workers: {sum(each.begun for each in served):,} checks begun, "
        f"{sum(each.cancelled for each in served):,} cancelled, {admitted:,} served; the store counts {counted:,} "
        f"({counted - admitted:+d}); left: {held} permits, {connections} connections, {tasks} tasks"
    )
    return (counted - admitted, held, connections, tasks) == (0, 0, 0, 0)


async def _worker(url: str, seconds: float, pause: float, seed: int) -> asyncio.subprocess.Process:
    arguments = [sys.executable, "-m", "benchmarks.faults.soak", url, *map(str, (seconds, pause, seed))]
    return await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE)


def main(numbers: list[str]) -> bool:
    """Run the soak, and return whether it ended well."""
    seconds, pause = (*map(float, numbers), *(SECONDS, PAUSE)[len(numbers) :])
    return asyncio.run(soak(seconds, pause))


if __name__ == "__main__":
    if len(sys.argv) > 3:
        logging.basicConfig(level=logging.WARNING)
        url, seconds, pause, seed = sys.argv[1:]
        print(json.dumps(asyncio.run(work(url, float(seconds), float(pause), int(seed)))))
    elif not main(sys.argv[1:]):
        sys.exit("something was lost or left")
