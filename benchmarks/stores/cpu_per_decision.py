"""Measure the CPU time of a decision of three layers, 64 at a time: that of the client's process, and that of Redis.

Each competitor runs in a child process against the same server, in turns. Its own time is the process's, that of Redis what
`INFO cpu` says, so parsing and sockets are in both.
"""

from collections.abc import Callable
from functools import partial
from statistics import median

from benchmarks.harness import child, in_turns, peers_python, redis
from benchmarks.report import Result
from benchmarks.stores.competitors import COMPETITORS, OURS, interpreter
from tests.support.redis_server import RedisServer

ROUNDS, SECONDS, CONCURRENCY = 3, 0.7, 64
NAMES = [name for name in COMPETITORS if name != "slowapi, fixed window"]

Pair = tuple[float, float]


def run() -> Result:
    """Measure and return microseconds per decision."""
    peers, pairs = peers_python(), dict[str, list[Pair]]({name: [] for name in NAMES})
    with redis() as server:
        measures: dict[str, Callable[[], float]] = {
            name: partial(_both, interpreter(name, peers), name, server, pairs) for name in NAMES
        }
        in_turns(measures, ROUNDS)
    client = {name: median(own for own, _ in pairs[name]) for name in NAMES}
    store = {name: median(spent for _, spent in pairs[name]) for name in NAMES}
    ratios = {name: median(sum(a) / sum(b) for a, b in zip(pairs[name], pairs["ours"], strict=True)) for name in NAMES}
    for name in NAMES:
        print(f"  {name:36} client {client[name]:7.1f} µs   Redis {store[name]:7.1f} µs   sum {ratios[name]:6.2f}×")
    bars = {
        f"{name}{suffix}": round(each[name], 1) for name in NAMES for suffix, each in (("", client), (", Redis", store))
    }
    others = [ratio for name, ratio in ratios.items() if name not in OURS and not name.startswith("GCRA")]
    return Result(
        name="cpu_per_decision",
        question="CPU of a decision, client and Redis together, 3 layers, 64 at a time",
        goal="`limits` ≥ 25×",
        measured=f"ours {client['ours']:.0f} + {store['ours']:.0f} µs; `limits` takes "
        f"{ratios['limits, sliding-window counter']:.0f}×, the best other library {min(others):.0f}×, a hand-made GCRA "
        f"pipeline {ratios['GCRA by hand, in a pipeline']:.1f}× as much",
        unit="µs of CPU",
        bars=bars,
        spread={name: (value, value) for name, value in bars.items()},
        ratios={name: round(value / bars["ours"], 2) for name, value in bars.items()},
    )


def _both(python: str, name: str, server: RedisServer, pairs: dict[str, list[Pair]]) -> float:
    before = _cpu(server)
    found = child(python, "benchmarks.stores.competitors", name, server.url, CONCURRENCY, SECONDS)
    # The server's time includes the warm-up, so it is counted with it.
    spent = (_cpu(server) - before) / (found["decisions"] + found["warm_up"]) * 1e6
    pairs[name].append((found["cpu_us"], spent))
    return found["cpu_us"] + spent


def _cpu(server: RedisServer) -> float:
    with server.client() as client:
        found = client.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])
