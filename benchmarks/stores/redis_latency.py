"""Measure the latency of one decision at a time, against a bare EVALSHA of an empty script with the same keys."""

import asyncio
from time import perf_counter

import redis.asyncio

from benchmarks.harness import compared, result
from benchmarks.harness import redis as redis_server
from benchmarks.report import Result
from ratelimit import Identity, Limit, Limiter, RateLimitSettings, RedisStore

ROUNDS, CALLS = 15, 300
BARE = "EVALSHA of an empty script"


def run() -> Result:
    """Measure and return microseconds per call."""
    limits = [
        Limit(name="token", rate="1000000/minute", per="token", burst=0.25),
        Limit(name="org", rate="1000000/minute", per="org"),
        Limit(name="endpoint", rate="1000000/minute", per=["endpoint", "token"]),
    ]
    with redis_server() as server:
        times = asyncio.run(measure(server.url, RateLimitSettings(limits=limits)))
    return result(
        "redis_latency",
        "Latency of one decision at a time, against an empty script",
        goal="≤ 1.3×",
        measured=f"{compared(times, BARE)['a decision of three windows']:.2f}×",
        unit="µs",
        times=times,
        first=BARE,
    )


async def measure(url: str, settings: RateLimitSettings) -> dict[str, list[float]]:
    """Return the rounds of both, which take turns."""
    client = redis.asyncio.Redis.from_url(url)
    sha = await client.script_load("return ''")
    caller = Identity(token="t", org="o")
    times: dict[str, list[float]] = {BARE: [], "a decision of three windows": []}
    async with Limiter(settings, RedisStore(url, timeout=10)) as limiter:
        policies = limiter.resolver.policies_at(limiter.resolver.endpoint("GET", "/x"))
        keys = [charge.key for charge in policies.charges(caller)]
        for _ in range(ROUNDS):
            began = perf_counter()
            for _ in range(CALLS):
                await client.evalsha(sha, len(keys), *keys, b"0123456789012345678901234567890123456789")
            middle = perf_counter()
            for _ in range(CALLS):
                await limiter.check(caller, endpoint="/x")
            times[BARE].append((middle - began) / CALLS * 1e6)
            times["a decision of three windows"].append((perf_counter() - middle) / CALLS * 1e6)
    await client.aclose()
    return times
