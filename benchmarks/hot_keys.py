"""Count the store calls that one hot key costs with units taken ahead, from four worker processes at once.

Two limits, one large and one that the four of them exceed together: what they admit of it must be no more than it says.
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

WORKERS, SECONDS, LIMIT = 4, 2.0, 20_000


def run() -> Result:
    """Measure and return store calls per thousand decisions."""
    calls: dict[str, list[float]] = {"a unit at a time": [], "taken ahead": []}
    over = 0
    with redis() as server:
        for number in range(3):
            for name, lease in (("a unit at a time", 0), ("taken ahead", 500)):
                print(f"\r  round {number + 1} of 3: {name:20}", end="", flush=True)
                admitted, made = workers(server, lease)
                calls[name].append(made)
                over += max(0, admitted - LIMIT)
    print(f"\r{'':60}\r", end="")
    ratio = sorted(one / ahead for one, ahead in zip(*calls.values(), strict=True))[1]
    return result(
        "hot_keys",
        "Store calls for one hot key from 4 processes, with and without a lease",
        goal="≥ 10× fewer calls, 0 over-admissions",
        measured=f"{ratio:.0f}× fewer calls, {over} over-admissions",
        unit="calls/1000",
        times=calls,
        first="a unit at a time",
    )


def workers(server: RedisServer, lease: int) -> tuple[int, float]:
    """Return what all workers were admitted of the small limit, and their requests to the store per 1000 decisions."""
    with server.client() as client:
        client.flushall()
    command = [sys.executable, "-m", "benchmarks.hot_keys", server.url, str(lease)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(WORKERS)]
    told = [json.loads(one.communicate()[0]) for one in started]
    decisions = sum(each["decisions"] for each in told)
    return sum(each["admitted"] for each in told), sum(each["asked"] for each in told) / decisions * 1000


async def work(url: str, lease: int) -> dict[str, int]:
    """Ask for two hot keys as fast as it goes."""
    store, asked = RedisStore(url, timeout=10), 0
    submit: Any = store.submit

    async def counted(request: Any) -> Any:
        nonlocal asked
        asked += 1
        return await submit(request)

    store.submit = counted  # type: ignore[method-assign]
    limits = [
        Limit(name=name, rate=f"{most}/hour", per="org", paths=f"/{name}", lease=lease)
        for name, most in (("large", 10**9), ("small", LIMIT))
    ]
    who, admitted, decisions = Identity(org="hot"), 0, 0
    async with Limiter(RateLimitSettings(limits=limits), store) as limiter:
        ends = perf_counter() + SECONDS
        while perf_counter() < ends:
            told = await asyncio.gather(*(limiter.check(who, endpoint="/large") for _ in range(16)))
            decisions += len(told)
        large = asked
        while (await limiter.check(who, endpoint="/small")).allowed:
            admitted += 1
    return {"decisions": decisions, "asked": large, "admitted": admitted}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(sys.argv[1], int(sys.argv[2])))))
