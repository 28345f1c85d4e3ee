"""Count decisions per second, and their latency, by the number in flight: three layers each, through Redis.

Each competitor runs in a child process against the same server, in turns.
"""

from statistics import median
from typing import Final

from benchmarks.harness import child, peers_python, progress, redis
from benchmarks.report import Result
from benchmarks.stores.competitors import OURS, interpreter

ROUNDS, SECONDS = 3, 0.6
IN_FLIGHT: Final = (1, 8, 64, 256)
NAMES: Final = (
    "ours",
    "ours, a call each",
    "limits, sliding-window counter",
    "throttled-py, GCRA",
    "fastapi-redis-sdk, fixed window",
)

Rounds = dict[str, dict[int, list[dict[str, float]]]]
"""For each competitor and number in flight, the figures of each round."""


def run() -> Result:
    """Measure and return decisions per second, by competitor and number in flight."""
    peers = peers_python()
    rounds: Rounds = {name: {each: [] for each in IN_FLIGHT} for name in NAMES}
    with redis() as server:
        for step in progress([(name, each) for _ in range(ROUNDS) for each in IN_FLIGHT for name in NAMES]):
            name, each = step
            python = interpreter(name, peers)
            rounds[name][each].append(child(python, "benchmarks.stores.competitors", name, server.url, each, SECONDS))
    speeds = {name: {each: _median(rounds[name][each], "per_second") for each in IN_FLIGHT} for name in NAMES}
    waits = {name: {each: _median(rounds[name][each], "p50_ms") for each in IN_FLIGHT} for name in NAMES}
    for name in NAMES:
        for each in IN_FLIGHT:
            print(f"  {name:34} {each:4} at a time {speeds[name][each]:9,.0f}/s   p50 {waits[name][each]:8.2f} ms")
    return _result(speeds, waits)


def _median(rounds: list[dict[str, float]], figure: str) -> float:
    return median(each[figure] for each in rounds)


def _result(speeds: dict[str, dict[int, float]], waits: dict[str, dict[int, float]]) -> Result:
    others = [name for name in NAMES if name not in OURS]
    against = ", ".join(
        f"{speeds['ours'][each] / max(speeds[name][each] for name in others):.1f}× at {each}" for each in IN_FLIGHT
    )
    limits = speeds["ours"][256] / speeds["limits, sliding-window counter"][64]
    shorter = min(waits[name][64] for name in others) / waits["ours"][64]
    bars = {f"{name}, {each}": round(speeds[name][each], 1) for name in NAMES for each in IN_FLIGHT}
    return Result(
        name="redis_concurrency",
        question="Decisions per second through Redis, by the number in flight",
        goal="grows with load",
        measured=f"{against}, of the best other library here; ours at 256 {limits:.0f}× limits at 64; p50 at 64 is {shorter:.1f}× shorter than the best's",
        unit="decisions/s",
        bars=bars,
        spread={name: (value, value) for name, value in bars.items()},
        ratios={name: round(value / bars["ours, 1"], 3) for name, value in bars.items()},
        lines=speeds,
        across="decisions in flight",
    )
