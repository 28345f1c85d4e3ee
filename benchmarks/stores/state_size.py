"""Measure the bytes of one key in Redis, whose name has 40 characters, by the number of requests that it has counted."""

import asyncio
from collections.abc import Sequence

from benchmarks.harness import redis, result
from benchmarks.report import Result
from ratelimit import RedisStore
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.stores.messages import StoreRequest

COUNTED = (1, 2, 10, 64, 100, 1000, 10_000)
KEY = "rl:{0123456789}:token:60:0123456789abcde"


def run() -> Result:
    """Measure and return bytes per key."""
    with redis() as server:
        sizes = {f"after {requests} requests": [float(asyncio.run(size(server.url, requests)))] for requests in COUNTED}
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


async def size(url: str, requests: int) -> int:
    """Return the size of a key after this number of requests, spread evenly over a window."""
    clock = [1_700_000_000_000_000]
    store = RedisStore(url, clock=lambda: clock[0], timeout=10)
    limit = EffectiveRate(policy="token", scope="token", limit=max(65, 2 * requests), window=60, burst=requests // 4)
    run = store.client.run
    await run("FLUSHALL")
    step = max(1, requests // 640)
    for done in range(0, requests, step):
        charges: Sequence[Charge] = [Charge(limit, KEY, min(step, requests - done))]
        await store.submit(StoreRequest(charges))
        clock[0] += 60_000_000 * step // requests
    size_bytes = int(await run("MEMORY", "USAGE", KEY))
    await store.aclose()
    return size_bytes
