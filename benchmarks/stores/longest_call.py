"""Measure how long the largest call holds the server: all its charges admitted, and all refused after a long search."""

from collections.abc import Callable
from functools import partial
from itertools import count
from statistics import median
from typing import Any, Final

from benchmarks.harness import in_turns, redis, result
from benchmarks.report import Result
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.stores.redis import codec
from ratelimit.stores.redis.batching import MAX_BATCH_CHARGES
from tests.support.redis_server import RedisServer

ROUNDS, BUCKETS, BUCKET_MS, UNITS = 15, 66, 938, 15_000
NOW: Final = 1_700_000_000_000
"""The time of the first call, in epoch milliseconds."""

LIMIT: Final = EffectiveRate(policy="p", scope="token", limit=10**6, window=60, burst=10**5)

_numbers = count()


def run() -> Result:
    """Measure and return milliseconds of Redis per call."""
    keys = [f"rl:{{acme}}:token:60:{number:040d}" for number in range(MAX_BATCH_CHARGES)]
    with redis() as server:
        for bucket in range(BUCKETS):
            call(server, [StoreRequest([Charge(LIMIT, key, UNITS)]) for key in keys], NOW + bucket * BUCKET_MS)
        measures: dict[str, Callable[[], float]] = {
            "all admitted": partial(timed, server, keys, 1),
            "all refused, behind 64 entries": partial(timed, server, keys, 900_000),
        }
        times = in_turns(measures, ROUNDS)
    longest = median(times["all refused, behind 64 entries"])
    return result(
        "longest_call",
        f"How long the largest call ({MAX_BATCH_CHARGES} charges) holds Redis",
        goal="≤ 5 ms",
        measured=f"{median(times['all admitted']):.1f} ms admitted, {longest:.1f} ms where all are refused",
        unit="ms of Redis",
        times=times,
        first="all admitted",
    )


def timed(server: RedisServer, keys: list[str], cost: int) -> float:
    """Return the milliseconds that the server spends on one call."""
    operation = Operation.CHARGE if cost == 1 else Operation.PEEK
    with server.client() as client:
        client.config_resetstat()
        call(server, [StoreRequest([Charge(LIMIT, key, cost)], operation) for key in keys], NOW + BUCKETS * BUCKET_MS)
        stats: Any = client.info("commandstats")
        return sum(float(stats[name]["usec"]) for name in stats if name in ("cmdstat_evalsha", "cmdstat_eval")) / 1000


def call(server: RedisServer, requests: list[StoreRequest], now: int) -> None:
    """Make one call at the given time (epoch ms)."""
    number = next(_numbers)
    arguments = codec.encode(requests, now=now, ttl_floor=10**8, name=f"call{number}", number=number)
    with server.client() as client:
        client.script_load(codec.SCRIPT)
        client.execute_command("EVALSHA", codec.SCRIPT_SHA, *arguments)
