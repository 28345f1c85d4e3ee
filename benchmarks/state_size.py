"""Measure the bytes that one key takes in Redis, by how many requests it has seen, with a name of 40 characters."""

import asyncio
from collections.abc import Sequence

from benchmarks.harness import redis, result
from benchmarks.report import Result
from ratelimit import RedisStore
from ratelimit.charge import Charge, Terms
from ratelimit.stores import Request

SEEN = [1, 2, 10, 64, 100, 1000, 10_000]
KEY = "rl:{0123456789}:token:60:0123456789abcde"


def run() -> Result:
    """Measure and return bytes a key."""
    with redis() as server:
        sizes = {f"after {seen} requests": [float(asyncio.run(size(server.url, seen)))] for seen in SEEN}
    most, one = max(each[0] for each in sizes.values()), sizes["after 1 requests"][0]
    return result(
        "state_size",
        "Bytes of a key in Redis (MEMORY USAGE)",
        goal="≤ 160 B with one request, ≤ 1.2 KB at any rate",
        measured=f"{one:.0f} B with one request, at most {most:.0f} B",
        unit="bytes",
        times=sizes,
        first="after 1 requests",
    )


async def size(url: str, seen: int) -> int:
    """Return the size of a key after so many requests, spread evenly over a window."""
    clock = [1_700_000_000_000_000]
    store = RedisStore(url, clock=lambda: clock[0], timeout=10)
    terms = Terms(kind="limit", policy="token", scope="token", limit=max(65, 2 * seen), window=60, allowance=seen // 4)
    run = store._lane().run  # noqa: SLF001 - a benchmark of what lies inside
    await run("FLUSHALL")
    step = max(1, seen // 640)
    for done in range(0, seen, step):
        charges: Sequence[Charge] = [Charge(terms, KEY, min(step, seen - done))]
        await store.submit(Request(charges))
        clock[0] += 60_000_000 * step // seen
    told = int(await run("MEMORY", "USAGE", KEY))
    await store.aclose()
    return told
