"""Count decisions per second on a Cluster of three nodes, against one server, by the number in flight.

All servers and the client share this machine, so this shows what the client pays for a Cluster, and not what more machines
would bring.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.harness import compared, in_turns, redis, result
from benchmarks.report import Result
from ratelimit import Identity, Limit, Limiter, RateLimitSettings, RedisStore
from tests.support.redis_cluster import RedisCluster

ROUNDS, SECONDS, PLENTY, TOKENS, ORGS = 5, 0.7, 10**9, 1000, 50
LIMITS = [
    Limit(name="token", rate=f"{PLENTY}/minute", per="token", burst=0.25),
    Limit(name="org", rate=f"{PLENTY}/minute", per="org"),
    Limit(name="endpoint", rate=f"{PLENTY}/minute", per=["endpoint", "token"]),
]


def run() -> Result:
    """Measure and return decisions per second."""
    with redis() as server, TemporaryDirectory() as folder:
        cluster = RedisCluster(Path(folder))
        cluster.start()
        measures: dict[str, Callable[[], float]] = {}
        for each in (64, 256):
            measures[f"one server, {each}"] = partial(decisions, server.url, None, each)
            measures[f"a Cluster of three, {each}"] = partial(decisions, cluster.url, None, each)
            measures[f"a Cluster of three, partitions=6, {each}"] = partial(decisions, cluster.url, 6, each)
        try:
            times = in_turns(measures, ROUNDS)
        finally:
            cluster.stop()
    shares = {each: compared(times, f"one server, {each}") for each in (64, 256)}
    names = ("a Cluster of three", "a Cluster of three, partitions=6")
    told = {name: ", ".join(f"{shares[n][name + f', {n}']:.2f} at {n}" for n in (64, 256)) for name in names}
    measured = "; ".join(f"{name} {figures}" for name, figures in told.items())
    return result(
        "cluster",
        "Decisions per second on a Cluster of three, here, of one server",
        goal="≥ 0.9 at 64, ≥ 1.2 at 256 where cores allow",
        measured=measured,
        unit="decisions/s",
        times=times,
        first="one server, 64",
    )


def decisions(url: str, partitions: int | None, in_flight: int) -> float:
    """Return the decisions per second with so many in flight."""

    async def measure() -> float:
        settings = RateLimitSettings(limits=LIMITS, partitions=partitions)
        async with Limiter(settings, RedisStore(url, timeout=10)) as limiter:
            numbers, done = count(), 0

            async def decide(until: float) -> None:
                nonlocal done
                while perf_counter() < until:
                    n = next(numbers)
                    decision = await limiter.check(Identity(token=f"t{n % TOKENS}", org=f"o{n % ORGS}"), endpoint="/x")
                    done += decision.allowed and not decision.degraded

            await decide(perf_counter() + 0.2)  # Connects.
            done, began = 0, perf_counter()
            await asyncio.gather(*(decide(began + SECONDS) for _ in range(in_flight)))
            return done / (perf_counter() - began)

    return asyncio.run(measure())
