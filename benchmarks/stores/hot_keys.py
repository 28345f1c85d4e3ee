"""Count the store calls for one hot key with and without prefetch, from four worker processes at once.

There are two limits: a large one, and a small one that the workers exceed together, of which they must not admit more than
it allows.
"""

import asyncio
import json
import subprocess
import sys
from time import perf_counter
from typing import Any

from benchmarks.harness import ROOT, redis, result
from benchmarks.report import Result
from ratelimit import Identity, Limit, Limiter, RateLimitSettings, RedisStore
from tests.support.redis_server import RedisServer

WORKERS, SECONDS, LIMIT, PREFETCH = 4, 2.0, 20_000, 500
WITHOUT, WITH = "one unit a call", f"prefetch={PREFETCH}"


def run() -> Result:
    """Measure and return store calls per thousand decisions."""
    calls: dict[str, list[float]] = {WITHOUT: [], WITH: []}
    over = 0
    with redis() as server:
        for number in range(3):
            for name, prefetch in ((WITHOUT, 0), (WITH, PREFETCH)):
                print(f"\r  round {number + 1} of 3: {name:20}", end="", flush=True)
                admitted, made = workers(server, prefetch)
                calls[name].append(made)
                over += max(0, admitted - LIMIT)
    print(f"\r{'':60}\r", end="")
    ratio = sorted(without / ahead for without, ahead in zip(*calls.values(), strict=True))[1]
    return result(
        "hot_keys",
        "Store calls for one hot key from 4 processes, with and without prefetch",
        goal="≥ 10× fewer calls, 0 over-admissions",
        measured=f"{ratio:.0f}× fewer calls, {over} over-admissions",
        unit="calls/1000",
        times=calls,
        first=WITHOUT,
    )


def workers(server: RedisServer, prefetch: int) -> tuple[int, float]:
    """Return what all workers admitted of the small limit, and their calls to the store per 1000 decisions."""
    with server.client() as client:
        client.flushall()
    command = [sys.executable, "-m", "benchmarks.stores.hot_keys", server.url, str(prefetch)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(WORKERS)]
    counts = [json.loads(process.communicate()[0]) for process in started]
    decisions = sum(each["decisions"] for each in counts)
    return sum(each["admitted"] for each in counts), sum(each["calls"] for each in counts) / decisions * 1000


async def work(url: str, prefetch: int) -> dict[str, int]:
    """Charge two hot keys as fast as possible."""
    store, calls = RedisStore(url, timeout=10), 0

    def counted(submit: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            return submit(*arguments)

        return call

    store.submit, store.submit_soon = counted(store.submit), counted(store.submit_soon)  # type: ignore[method-assign]
    limits = [
        Limit(name=name, rate=f"{most}/hour", per="org", paths=f"/{name}", prefetch=prefetch)
        for name, most in (("large", 10**9), ("small", LIMIT))
    ]
    caller, admitted, decisions = Identity(org="hot"), 0, 0
    async with Limiter(RateLimitSettings(limits=limits), store) as limiter:
        ends = perf_counter() + SECONDS
        while perf_counter() < ends:
            decided = await asyncio.gather(*(limiter.check(caller, endpoint="/large") for _ in range(16)))
            decisions += len(decided)
        calls_for_large = calls
        while (await limiter.check(caller, endpoint="/small")).allowed:
            admitted += 1
    return {"decisions": decisions, "calls": calls_for_large, "admitted": admitted}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(sys.argv[1], int(sys.argv[2])))))
