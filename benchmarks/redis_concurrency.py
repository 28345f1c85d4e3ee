"""Count decisions per second and their latency as more are under way: three layers each, through Redis.

Every contender runs in a process of its own against the same server, in turns.
"""

import sys
from statistics import median
from typing import Final

from benchmarks.contenders import OURS
from benchmarks.harness import child, peers_python, progress, redis
from benchmarks.report import Result

ROUNDS, SECONDS = 3, 0.6
AT_ONCE: Final = (1, 8, 64, 256)
NAMES: Final = (
    "ours",
    "ours, a call each",
    "limits, sliding-window counter",
    "throttled-py, GCRA",
    "fastapi-redis-sdk, fixed window",
)

Told = dict[str, dict[int, list[dict[str, float]]]]


def run() -> Result:
    """Measure and return decisions per second, by contender and concurrency."""
    peers = peers_python()
    told: Told = {name: {each: [] for each in AT_ONCE} for name in NAMES}
    with redis() as server:
        for step in progress([(name, each) for _ in range(ROUNDS) for each in AT_ONCE for name in NAMES]):
            name, each = step
            python = sys.executable if name in OURS else peers
            told[name][each].append(child(python, "benchmarks.contenders", name, server.url, each, SECONDS))
    speeds = {name: {each: _middle(told[name][each], "per_second") for each in AT_ONCE} for name in NAMES}
    waits = {name: {each: _middle(told[name][each], "p50_ms") for each in AT_ONCE} for name in NAMES}
    for name in NAMES:
        for each in AT_ONCE:
            print(f"  {name:34} {each:4} at a time {speeds[name][each]:9,.0f}/s   p50 {waits[name][each]:8.2f} ms")
    return _result(speeds, waits)


def _middle(rounds: list[dict[str, float]], what: str) -> float:
    return median(each[what] for each in rounds)


def _result(speeds: dict[str, dict[int, float]], waits: dict[str, dict[int, float]]) -> Result:
    others = [name for name in NAMES if name not in OURS]
    against = ", ".join(
        f"{speeds['ours'][each] / max(speeds[name][each] for name in others):.1f}× at {each}" for each in AT_ONCE
    )
    shorter = min(waits[name][64] for name in others) / waits["ours"][64]
    bars = {f"{name}, {each}": round(speeds[name][each], 1) for name in NAMES for each in AT_ONCE}
    return Result(
        name="redis_concurrency",
        question="Decisions per second through Redis by how many are under way",
        goal="grows with load",
        measured=f"{against}, of the best peer here; p50 at 64 is {shorter:.1f}× shorter than the best's",
        unit="decisions/s",
        bars=bars,
        spread={name: (value, value) for name, value in bars.items()},
        ratios={name: round(value / bars["ours, 1"], 3) for name, value in bars.items()},
        lines=speeds,
        across="decisions under way at a time",
    )
