"""Find the worst window of each algorithm: the most that an adversary gets admitted within any window, of a limit of 100.

The adversary knows the algorithm and may ask as often as it likes: it tries when to fill the limit, and when to come back
for more. Neither a real clock nor the machine matters; the figures are the same everywhere.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable

from benchmarks.harness import result
from benchmarks.report import Result
from ratelimit import MemoryStore
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.stores.messages import StoreRequest

LIMIT, WINDOW, STEP = 100, 1000, 5
"""Units, milliseconds, and the milliseconds between two attempts of the adversary."""

Admit = Callable[[int], bool]
"""Says whether a request at an instant (ms) is admitted, and counts it if so."""


def run() -> Result:
    """Try all algorithms, and return the most that any window held, in percent of the limit."""
    worst = {name: [float(adversary(make))] for name, make in ALGORITHMS.items()}
    return result(
        "accuracy",
        "The worst window an adversary gets, of a limit of 100",
        goal="ours: 100, with burst=0.25: 125",
        measured=", ".join(f"{name} {most[0]:.0f}" for name, most in worst.items()),
        unit="% of the limit",
        times=worst,
        first="log of all requests",
    )


def adversary(make: Callable[[], Admit]) -> int:
    """Return the most that any window holds, over many ways to fill the limit twice."""
    most = 0
    for first in range(0, WINDOW, 25):
        for pause in range(0, 2 * WINDOW, 25):
            admit, times = make(), list[int]()
            for now in (*range(first, first + 50, STEP), *range(first + 50 + pause, first + pause + 2 * WINDOW, STEP)):
                while admit(now):
                    times.append(now)
            most = max(most, *(bisect_right(times, at + WINDOW - 1) - i for i, at in enumerate(times)))
    return most


def fixed_window() -> Admit:
    """Count in fixed windows of the clock."""
    state = [0, 0]

    def admit(now: int) -> bool:
        if now // WINDOW != state[0]:
            state[:] = [now // WINDOW, 0]
        if state[1] >= LIMIT:
            return False
        state[1] += 1
        return True

    return admit


def two_windows() -> Admit:
    """Add the count of the previous window, weighted by the part of it that the sliding window still covers."""
    counts: dict[int, int] = {}

    def admit(now: int) -> bool:
        window, part = now // WINDOW, now % WINDOW / WINDOW
        if counts.get(window - 1, 0) * (1 - part) + counts.get(window, 0) + 1 > LIMIT:
            return False
        counts[window] = counts.get(window, 0) + 1
        return True

    return admit


def gcra() -> Admit:
    """Let a bucket of the whole limit refill evenly."""
    state = [0.0]

    def admit(now: int) -> bool:
        tat = max(state[0], now)
        if tat + WINDOW / LIMIT - now > WINDOW + 1e-9:
            return False
        state[0] = tat + WINDOW / LIMIT
        return True

    return admit


def log() -> Admit:
    """Remember every request."""
    times: deque[int] = deque()

    def admit(now: int) -> bool:
        while times and times[0] <= now - WINDOW:
            times.popleft()
        if len(times) >= LIMIT:
            return False
        times.append(now)
        return True

    return admit


def ours(burst: int = 0) -> Admit:
    """Ask this package's in-process store."""
    clock = [0]
    store = MemoryStore(clock=lambda: clock[0])
    limit = EffectiveRate(policy="p", scope="token", limit=LIMIT, window=WINDOW // 1000, burst=burst)

    def admit(now: int) -> bool:
        clock[0] = (now + 10**9) * 1000
        ((_, _, wait_ms),) = store.run(StoreRequest([Charge(limit, "k")])).readings
        return wait_ms <= 0

    return admit


ALGORITHMS: dict[str, Callable[[], Admit]] = {
    "log of all requests": log,
    "fixed window": fixed_window,
    "two-window counter": two_windows,
    "GCRA, burst of the limit": gcra,
    "ours": ours,
    "ours, burst=0.25": lambda: ours(LIMIT // 4),
}
