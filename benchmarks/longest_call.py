"""Measure how long one call can hold the server: as many charges as it may carry, admitted, and refused after a long walk."""

from collections.abc import Callable
from functools import partial
from itertools import count
from statistics import median
from typing import Any, Final

from benchmarks.harness import in_turns, redis, result
from benchmarks.report import Result
from ratelimit.charge import Charge, Terms
from ratelimit.stores import Op, Request, wire
from ratelimit.stores.group_commit import MAX_CHARGES
from tests.support.engines import terms
from tests.support.redis_server import RedisServer

ROUNDS, SLOTS, SLOT_MS, UNITS = 15, 66, 938, 15_000
NOW: Final = 1_700_000_000_000
WINDOW: Final[Terms] = terms(10**6, 60, 10**5)
_numbers = count()


def run() -> Result:
    """Measure and return milliseconds of Redis for one call."""
    keys = [f"rl:{{acme}}:token:60:{number:040d}" for number in range(MAX_CHARGES)]
    with redis() as server:
        for slot in range(SLOTS):
            call(server, [Request([Charge(WINDOW, key, UNITS)]) for key in keys], NOW + slot * SLOT_MS)
        measures: dict[str, Callable[[], float]] = {
            "all admitted": partial(timed, server, keys, 1),
            "all refused, behind 64 entries": partial(timed, server, keys, 900_000),
        }
        times = in_turns(measures, ROUNDS)
    longest = median(times["all refused, behind 64 entries"])
    return result(
        "longest_call",
        f"How long the largest call ({MAX_CHARGES} charges) holds Redis",
        goal="≤ 5 ms",
        measured=f"{median(times['all admitted']):.1f} ms admitted, {longest:.1f} ms where all are refused",
        unit="ms of Redis",
        times=times,
        first="all admitted",
    )


def timed(server: RedisServer, keys: list[str], cost: int) -> float:
    """Return the milliseconds that the server works on one call."""
    op = Op.CHARGE if cost == 1 else Op.PEEK
    with server.client() as client:
        client.config_resetstat()
        call(server, [Request([Charge(WINDOW, key, cost)], op) for key in keys], NOW + SLOTS * SLOT_MS)
        stats: Any = client.info("commandstats")
        return sum(float(stats[name]["usec"]) for name in stats if name in ("cmdstat_evalsha", "cmdstat_eval")) / 1000


def call(server: RedisServer, requests: list[Request], now: int) -> None:
    """Make one call by a clock of our own."""
    number = next(_numbers)
    arguments = wire.encode(requests, now=now, ttl_floor=10**8, name=f"call{number}", number=number)
    with server.client() as client:
        client.script_load(wire.SCRIPT)
        client.execute_command("EVALSHA", wire.SCRIPT_SHA, *arguments)
