"""Measure a decision of three layers in memory: by this package in one atomic step, by other libraries in three.

`python -m benchmarks.stores.in_memory NAME` measures one of them and prints its figure. The libraries written in Rust count in one
process only, and have neither organizations nor a step over several layers. Imports are local: most of the libraries are
installed in another virtual environment.
"""
# ruff: noqa: PLC0415

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from time import process_time
from typing import Any

from benchmarks.harness import child, compared, in_turns, peers_python, result
from benchmarks.report import Result

ROUNDS, DECISIONS, TOKENS, ORGS, PLENTY = 5, 10_000, 1000, 50, 10**9

Decide = Callable[[int], Awaitable[object] | object]


def run() -> Result:
    """Measure and return microseconds per decision."""
    peers = peers_python()
    measures: dict[str, Callable[[], float]] = {
        name: partial(_child, sys.executable if name == "ours" else peers, name) for name in LIBRARIES
    }
    times = in_turns(measures, ROUNDS)
    ratios = compared(times, "ours")
    shown = ", ".join(f"{name} {ratio:.1f}×" for name, ratio in ratios.items() if name != "ours")
    return result(
        "in_memory",
        "CPU of a decision of three layers in memory, with all numbers, against ours",
        goal="ahead of every library in Python",
        measured=shown,
        unit="µs",
        times=times,
        first="ours",
    )


def _child(python: str, name: str) -> float:
    return child(python, "benchmarks.stores.in_memory", name)["cpu_us"]


def _layers(n: int) -> tuple[str, str, str]:
    return f"t{n % TOKENS}", f"o{n % ORGS}", f"x:t{n % TOKENS}"


def ours() -> Decide:
    """Charge three sliding windows in one step: this package."""
    from ratelimit import Identity, Limit, Limiter, RateLimitSettings

    per: list[list[str]] = [["token"], ["org"], ["endpoint", "token"]]
    limits = [Limit(name=f"l{n}", rate=f"{PLENTY}/minute", per=each) for n, each in enumerate(per)]
    limiter = Limiter(RateLimitSettings(limits=limits))

    async def decide(n: int) -> object:
        token, org, _ = _layers(n)
        return (await limiter.check(Identity(token=token, org=org), endpoint="/x")).binding

    return decide


def limits_sliding_window() -> Decide:
    """`limits`, sliding-window counter, with numbers: one layer after the other."""
    from limits import RateLimitItemPerMinute
    from limits.storage import MemoryStorage
    from limits.strategies import SlidingWindowCounterRateLimiter

    limiter, item = SlidingWindowCounterRateLimiter(MemoryStorage()), RateLimitItemPerMinute(PLENTY)

    def decide(n: int) -> object:
        return [(limiter.hit(item, name), limiter.get_window_stats(item, name)) for name in _layers(n)]

    return decide


def throttled() -> Decide:
    """`throttled-py`, GCRA: one layer after the other."""
    from throttled import RateLimiterType, Throttled, rate_limiter

    one = Throttled(using=RateLimiterType.GCRA.value, quota=rate_limiter.per_min(10**7))
    return lambda n: [one.limit(name) for name in _layers(n)]


def rust_py_rate_limit() -> Decide:
    """`rust-py-rate-limit`, written in Rust, with numbers: one layer after the other."""
    import rust_py_rate_limit

    limiter: Any = rust_py_rate_limit.RateLimiter(PLENTY, 60)
    return lambda n: [limiter.check(name) for name in _layers(n)]


LIBRARIES: dict[str, Callable[[], Decide]] = {
    "ours": ours,
    "limits, sliding-window counter": limits_sliding_window,
    "throttled-py, GCRA": throttled,
    "rust-py-rate-limit, fixed window": rust_py_rate_limit,
}


async def measure(decide: Decide) -> float:
    """Return microseconds of CPU per decision."""
    for n in range(TOKENS):
        await _awaited(decide(n))
    began = process_time()
    for n in range(DECISIONS):
        await _awaited(decide(n))
    return (process_time() - began) / DECISIONS * 1e6


async def _awaited(made: Any) -> None:
    if hasattr(made, "__await__"):
        await made


if __name__ == "__main__":
    print(json.dumps({"cpu_us": asyncio.run(measure(LIBRARIES[sys.argv[1]]()))}))
