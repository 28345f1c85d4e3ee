"""Measure the bytes of one key in `memory://`, by the number of requests that it has counted, over a million keys."""

import json
import sys
from functools import partial

from benchmarks.harness import child, result
from benchmarks.report import Result
from ratelimit import MemoryStore
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import quota_limit, window_limit

KEYS = 1_000_000
CASES = {
    "a window, one request": 1,
    "a window, two requests": 2,
    "a window, ten requests": 10,
    "a quota, one request": 0,
}


def run() -> Result:
    """Measure and return bytes per key."""
    measure = partial(child, sys.executable, "benchmarks.stores.memory_size")
    sizes = {name: [measure(requests)["bytes"]] for name, requests in CASES.items()}
    shown = ", ".join(f"{name}: {size:.0f} B" for name, (size,) in sizes.items())
    return result(
        "memory_size",
        "Bytes of a key in memory (resident memory of a process with a million keys)",
        goal="≤ 250 B for a window with one request: callers may be made up",
        measured=shown,
        unit="bytes",
        times=sizes,
        first="a window, one request",
    )


def size(requests: int) -> float:
    """Return the bytes of a key that has counted so many requests, a minute apart (0: one, under a quota)."""
    clock = ManualClock()
    store, keys = MemoryStore(clock=clock, max_keys=2 * KEYS), KEYS if requests < 10 else KEYS // 10
    limit = window_limit(1000, 3600) if requests else quota_limit(1000, "day")
    before = resident()
    for _ in range(max(1, requests)):
        clock.advance(seconds=60)
        for n in range(keys):
            address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
            store.run(StoreRequest([Charge(limit, f"rl:{{{address}}}:address:3600:{address}")]))
    assert len(store) == keys
    return (resident() - before) / keys


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[1]) * 4096


if __name__ == "__main__":
    print(json.dumps({"bytes": size(int(sys.argv[1]))}))
